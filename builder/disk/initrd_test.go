package disk

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func sample(t *testing.T) archive {
	t.Helper()
	a := archive{}
	for _, e := range []struct {
		name string
		entry
	}{
		{"init", entry{mode: fs.ModeSymlink | 0o777, data: []byte("usr/bin/true")}},
		{"usr/bin/true", entry{mode: 0o755, data: []byte("#!/bin/sh\n")}},
		{"/etc//empty", entry{mode: 0o444}},
		{"proc", entry{mode: fs.ModeDir | 0o555}},
	} {
		if err := a.add(e.name, e.entry); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// cpio itself must read what we write.
func TestCPIO(t *testing.T) {
	var first, second bytes.Buffer
	if err := sample(t).writeCPIO(&first, 1735689600); err != nil {
		t.Fatal(err)
	}
	if err := sample(t).writeCPIO(&second, 1735689600); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs differ")
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("cpio is needed in CI: apt-get install cpio")
		}
		t.Skip("cpio is not installed")
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "--extract", "--quiet", "--preserve-modification-time", "--no-preserve-owner")
	cmd.Dir, cmd.Stdin = dir, &first
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if target, err := os.Readlink(filepath.Join(dir, "init")); err != nil || target != "usr/bin/true" {
		t.Errorf("init is %q: %v", target, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "usr/bin/true"))
	if err != nil || string(b) != "#!/bin/sh\n" {
		t.Errorf("usr/bin/true is %q: %v", b, err)
	}
	for name, mode := range map[string]fs.FileMode{"usr/bin/true": 0o755, "etc/empty": 0o444, "proc": fs.ModeDir | 0o555, "usr": fs.ModeDir | 0o755} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode || info.ModTime().Unix() != 1735689600 && !info.IsDir() {
			t.Errorf("%s: mode %s, time %s", name, info.Mode(), info.ModTime())
		}
	}
}

func TestArchiveRefusesTakenPaths(t *testing.T) {
	a := sample(t)
	for name, e := range map[string]entry{
		"usr/bin/true":       {mode: 0o755, origin: "another"},
		"usr/bin/true/below": {mode: 0o755, origin: "another"},
		"proc":               {mode: 0o644, origin: "another"},
	} {
		if err := a.add(name, e); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("%s: want an error that names both owners, got %v", name, err)
		}
	}
	if err := a.add("proc", entry{mode: fs.ModeDir | 0o755}); err != nil {
		t.Errorf("a directory may come twice: %v", err)
	}
	if err := a.add("usr/bin/true", entry{mode: 0o644, origin: "overlay"}); err != nil || a["usr/bin/true"].origin != "overlay" {
		t.Errorf("the overlay must win: %v", err)
	}
}

func TestCPIORefusesDevices(t *testing.T) {
	a := archive{"dev/null": {mode: fs.ModeDevice | fs.ModeCharDevice | 0o666}}
	if err := a.writeCPIO(&bytes.Buffer{}, 0); err == nil {
		t.Error("a device is written as something else")
	}
}
