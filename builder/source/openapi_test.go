package source

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A module that nobody has downloaded yet has its definitions generated too.
// The build module here replaces a module as Kubernetes' does; its module
// cache is empty, and the proxy is what this machine has downloaded already.
func TestOpenAPIInputsDownloads(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.GoMod}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	version, goMod, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	cache, _, ok := strings.Cut(goMod, "/cache/download/")
	if !ok {
		t.Fatalf("k8s.io/api has its go.mod at %s, want it in a module cache", goMod)
	}
	empty := t.TempDir()
	t.Setenv("GOMODCACHE", empty)
	t.Setenv("GOPROXY", "file://"+filepath.Join(cache, "cache/download"))
	t.Setenv("GONOSUMDB", "*") // these files were checked when they were downloaded
	t.Cleanup(func() {         // the go command makes directories that nobody can write to
		filepath.WalkDir(empty, func(p string, d fs.DirEntry, _ error) error {
			if d.IsDir() {
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	work := t.TempDir()
	mod := "module kbuild.dev/build/test\n\ngo 1.26.0\n\nrequire k8s.io/api " + version + "\n\nreplace k8s.io/api => k8s.io/api " + version + "\n"
	sum, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"go.mod": mod, "go.sum": string(sum)} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inputs, err := openAPIInputs(t.Context(), work)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(inputs, "k8s.io/api/core/v1") {
		t.Errorf("the inputs are %q, want k8s.io/api/core/v1 among them", inputs)
	}
}
