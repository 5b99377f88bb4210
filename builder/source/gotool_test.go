package source

import (
	"os"
	"strings"
	"testing"
)

// A command that failed shows the lines that say why, and names the file that
// holds everything.
func TestCommandError(t *testing.T) {
	transcript, err := store{t.TempDir()}.transcript("kubernetes-v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	defer transcript.Close()
	script := `for i in 1 2 3; do echo "go: downloading example.com/m v1.0.$i" >&2; echo k8s.io/api/core/v$i >&2; done; echo 'main.go:3: undefined: x' >&2; exit 1`
	packages := 0
	_, err = command{dir: t.TempDir(), env: os.Environ(), transcript: transcript, stderr: &lineCounter{each: func(n int) { packages = n }}}.run(t.Context(), "sh", "-c", script)
	if err == nil {
		t.Fatal("no error")
	}
	said := err.Error()
	for _, want := range []string{"main.go:3: undefined: x", transcript.Name()} {
		if !strings.Contains(said, want) {
			t.Errorf("the error lacks %q:\n%s", want, said)
		}
	}
	_, shown, _ := strings.Cut(said, "exit status 1")
	for _, noise := range []string{"go: downloading", "k8s.io/api"} {
		if strings.Contains(shown, noise) {
			t.Errorf("the error shows %q:\n%s", noise, said)
		}
	}
	if packages != 7 {
		t.Errorf("%d lines counted, want 7", packages)
	}
	all, err := os.ReadFile(transcript.Name())
	if err != nil || !strings.Contains(string(all), "go: downloading example.com/m v1.0.3") {
		t.Errorf("%v; the transcript is %q", err, all)
	}
}
