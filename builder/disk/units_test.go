package disk_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/templates"
)

// TestUnits lets the base's own systemd judge every unit of the templates, in
// the root and in the initrd, one by one, so that none is left out.
func TestUnits(t *testing.T) {
	osTree, _ := trees(t)
	for name, files := range map[string]fs.FS{"root": templates.Root(), "initrd": templates.Initrd()} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			nodeRoot(t, osTree, root, false)
			if name == "initrd" {
				// What the root masks, because the initrd has done it.
				if err := os.Remove(filepath.Join(root, "etc/systemd/system/systemd-repart.service")); err != nil {
					t.Fatal(err)
				}
				lay(t, files, root)
				// What systemd-fstab-generator makes of the kernel's command line.
				mount := filepath.Join(root, "usr/lib/systemd/system/sysroot.mount")
				if err := os.WriteFile(mount, []byte("[Mount]\nWhat=/dev/vda2\nWhere=/sysroot\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			// The units name them; the builder puts them in place.
			for _, program := range []string{"kubelet", "kbuild-firstboot"} {
				if err := os.WriteFile(filepath.Join(root, "usr/bin", program), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, unit := range units(t, files) {
				cmd := base.Tree{Dir: root}.Command(t.Context(), nil, nil, "systemd-analyze", "verify", "--man=no", unit)
				if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, out)
				}
			}
		})
	}
}

// units are the names of the units in files: those that files hold whole, and
// those that they hold a drop-in of. One that is masked is left out.
func units(t *testing.T, files fs.FS) []string {
	t.Helper()
	seen := map[string]bool{}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(name, "/systemd/system/") {
			return err
		}
		unit := path.Base(name)
		if dir := path.Base(path.Dir(name)); strings.HasSuffix(dir, ".d") {
			unit = strings.TrimSuffix(dir, ".d")
		}
		if st, err := d.Info(); err == nil && st.Size() == 0 {
			return nil
		}
		// A template is judged by one of its units.
		seen[strings.Replace(unit, "@.", "@dev-vda.", 1)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 4 {
		t.Fatalf("only these units were found: %v", seen)
	}
	var names []string
	for n := range seen {
		names = append(names, n)
	}
	return names
}

// lay writes files below root.
func lay(t *testing.T, files fs.FS, root string) {
	t.Helper()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		to := filepath.Join(root, name)
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
