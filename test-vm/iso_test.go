package testvm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The judge is the host's own kernel or blkid: the label is what cloud images
// look for.
func TestISO(t *testing.T) {
	name := filepath.Join(t.TempDir(), "c.iso")
	files := map[string]string{"user-data": "#cloud-config\n", "meta-data": "instance-id: i-1\n"}
	if err := writeISO(name, "cidata", files); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CD001", files["user-data"], files["meta-data"], "user-data"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the volume does not hold %q", want)
		}
	}
	if _, err := exec.LookPath("blkid"); err != nil {
		t.Skip("no blkid to judge the label")
	}
	out, err := exec.Command("blkid", "-p", "-o", "export", name).CombinedOutput()
	if err != nil || !strings.Contains(strings.ToLower(string(out)), "label=cidata\n") || !strings.Contains(string(out), "TYPE=iso9660") {
		t.Errorf("blkid: %v\n%s", err, out)
	}
	if err := writeISO(name, "cidata", map[string]string{"../x": ""}); err == nil {
		t.Error("a path was taken for a file name")
	}
}
