package templates

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTmpfiles boots a disk on which the power was cut while files were
// written: what is half-written goes, everything else stays. When the machine
// runs, nothing goes.
func TestTmpfiles(t *testing.T) {
	bin, err := exec.LookPath("systemd-tmpfiles")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const conf = "usr/lib/tmpfiles.d/kbuild-node.conf"
	rules, err := fs.ReadFile(Root(), conf)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(conf, string(rules))
	half := map[string]bool{}
	keep := map[string]bool{}
	for _, f := range []string{
		"var/lib/kbuild/node.json", "var/lib/kbuild/cni/net.d/10-flannel.conflist",
		"var/lib/kbuild/kubernetes/admin.conf", "var/lib/kbuild/kubernetes/pki/ca.key", "var/lib/kbuild/kubernetes/pki/etcd/ca.key",
		"var/lib/kbuild/kubernetes/manifests/etcd.yaml", "var/lib/kubelet/config.yaml", "var/lib/kubelet/pki/kubelet.key",
	} {
		write(f, "whole")
		keep[f] = true
		f = filepath.Join(filepath.Dir(f), ".kbuild-HALF")
		write(f, "ha")
		half[f] = true
	}
	tmpfiles := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(bin, append([]string{"--root=" + root, "--remove"}, append(args, filepath.Join(root, conf))...)...).CombinedOutput(); err != nil {
			t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
		}
	}
	files := func() map[string]bool {
		t.Helper()
		all := map[string]bool{}
		err := filepath.WalkDir(filepath.Join(root, "var"), func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				all[strings.TrimPrefix(file, root+"/")] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	tmpfiles()
	if all := files(); len(all) != len(keep)+len(half) {
		t.Errorf("in a running machine only these are left: %q", slices.Sorted(maps.Keys(all)))
	}
	tmpfiles("--boot")
	if all := files(); !maps.Equal(all, keep) {
		t.Errorf("after a boot there is %q, want %q", slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(keep)))
	}
}
