package base

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// entry makes a cache with one small tree in it, the way makeTree does.
func cacheEntry(t *testing.T) (dir string, tree Tree) {
	t.Helper()
	dir = t.TempDir()
	tmp := filepath.Join(dir, ".new-os-1")
	for _, d := range []string{"tree/etc", "tree/usr/bin"} {
		if err := os.MkdirAll(filepath.Join(tmp, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"tree/etc/os-release": "ID=debian\n", "tree/usr/bin/sh": "#!"} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sh", filepath.Join(tmp, "tree/usr/bin/dash")); err != nil {
		t.Fatal(err)
	}
	tree = Tree{Packages: []Package{{"dash", "1", "amd64", strings.Repeat("a", 64)}}}
	tree.Key = treeKey(osRecipe, tree.Packages)
	if err := enterCache(dir, tmp, &tree); err != nil {
		t.Fatal(err)
	}
	return dir, tree
}

func TestOpen(t *testing.T) {
	dir, tree := cacheEntry(t)
	got, err := open(dir, tree.Key)
	if err != nil || got.Dir != tree.Dir || len(got.Packages) != 1 || got.Packages[0] != tree.Packages[0] {
		t.Fatalf("got %+v: %v", got, err)
	}
	if _, err := open(dir, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing tree: %v", err)
	}
}

func TestOpenNoticesDamage(t *testing.T) {
	for name, damage := range map[string]func(tree string) error{
		"flipped bit":  func(tree string) error { return os.WriteFile(filepath.Join(tree, "usr/bin/sh"), []byte("#\""), 0o755) },
		"removed file": func(tree string) error { return os.Remove(filepath.Join(tree, "etc/os-release")) },
		"removed tree": os.RemoveAll,
		"added file":   func(tree string) error { return os.WriteFile(filepath.Join(tree, "etc/new"), nil, 0o644) },
		"other mode":   func(tree string) error { return os.Chmod(filepath.Join(tree, "usr/bin/sh"), 0o700) },
		"other target": func(tree string) error {
			p := filepath.Join(tree, "usr/bin/dash")
			os.Remove(p)
			return os.Symlink("bash", p)
		},
		"file for link": func(tree string) error {
			p := filepath.Join(tree, "usr/bin/dash")
			os.Remove(p)
			return os.WriteFile(p, []byte("sh"), 0o777)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, tree := cacheEntry(t)
			if err := damage(tree.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := open(dir, tree.Key); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("want damage, got %v", err)
			}
		})
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one gets the lock, or another error: %v", err)
	}
	unlock()
	unlock, err = lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// What a fresh machine lacks is said before anything is done.
func TestNothingInstalled(t *testing.T) {
	missing := func(string) (string, error) { return "", fs.ErrNotExist }
	err := checkHost(t.TempDir(), osRecipe, missing)
	if err == nil || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("got %v", err)
	}
	here := func(string) (string, error) { return "/bin/true", nil }
	huge := osRecipe
	huge.Needs = 1 << 60
	if err := checkHost(t.TempDir(), huge, here); err == nil || os.Geteuid() == 0 && !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownArch(t *testing.T) {
	_, err := OS(t.Context(), Config{Cache: t.TempDir(), Arch: "riscv64"})
	if err == nil || !strings.Contains(err.Error(), `"riscv64"`) {
		t.Errorf("got %v", err)
	}
}

func TestFinishNode(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"boot/vmlinuz-6.1", "boot/config-6.1", "usr/lib/modules/6.1/modules.dep", "etc/hostname", "etc/passwd-", "etc/passwd",
		"var/lib/dpkg/status", "usr/share/doc/dash/copyright", "usr/lib/python3/__pycache__/x.pyc", "opt/x"} {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := finishNode(root); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"boot/vmlinuz-6.1", "etc/passwd-", "var/lib", "usr/lib/python3/__pycache__"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, here := range []string{"usr/lib/modules/6.1/vmlinuz", "etc/passwd", "usr/share/doc/dash/copyright", "efi", "etc/machine-id"} {
		info, err := os.Lstat(filepath.Join(root, here))
		if err != nil {
			t.Error(err)
		} else if info.ModTime().Unix() != treeTime {
			t.Errorf("%s has the time %s", here, info.ModTime())
		}
	}
	for name, want := range nodeLinks {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != want || filepath.IsAbs(got) {
			t.Errorf("%s points to %q: %v", name, got, err)
		}
	}
	if err := finishNode(t.TempDir()); err == nil {
		t.Error("a tree without a kernel is a node")
	}
}
