package ignition

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// validator compiles ignition-validate, at the version that .ci/tools pins.
// The go command keeps what it compiles.
func validator(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "ignition-validate")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/coreos/ignition/v2/validate")
	cmd.Dir = "../../.ci/tools"
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("cannot compile ignition-validate: %v\n%s", err, out)
		}
		t.Skipf("cannot compile ignition-validate: %v\n%s", err, out)
	}
	return bin
}

// TestIgnitionValidate has Ignition's own program judge our configs, and sees
// that it can say no.
func TestIgnitionValidate(t *testing.T) {
	bin := validator(t)
	merged := params(t)
	merged.Merge = site(t)
	plain, err := Make(params(t))
	if err != nil {
		t.Fatal(err)
	}
	both, err := Make(merged)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config []byte
		ok     bool
	}{
		"alone":         {plain.Ignition, true},
		"merged":        {both.Ignition, true},
		"the user's":    {[]byte(merged.Merge), true},
		"broken hash":   {bytes.Replace(plain.Ignition, []byte("sha256-5a"), []byte("sha256-"), 1), false},
		"broken source": {bytes.Replace(plain.Ignition, []byte("https://images"), []byte("mailto://images"), 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(bin, "-")
			cmd.Stdin = bytes.NewReader(c.config)
			out, err := cmd.CombinedOutput()
			if c.ok && (err != nil || len(out) > 0) {
				t.Errorf("refused: %v: %s", err, out)
			}
			if !c.ok && (err == nil || !strings.Contains(string(out), "error")) {
				t.Errorf("accepted: %v: %s", err, out)
			}
		})
	}
}
