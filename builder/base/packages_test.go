package base

import (
	"errors"
	"os/user"
	"strings"
	"testing"
)

const records = `Package: libc6
Architecture: amd64
Version: 2.41-12
Depends: libgcc-s1
SHA256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
Description: GNU C Library
 Version: not a field of the record

Package: ca-certificates
Version: 20250419
Architecture: all
SHA256: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb

Package: libc6
Architecture: amd64
Version: 2.41-12
SHA256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa

`

func TestParsePackages(t *testing.T) {
	got, err := parsePackages(records)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "ca-certificates" || got[0].Arch != "all" || got[1] != (Package{"libc6", "2.41-12", "amd64", strings.Repeat("a", 64)}) {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"Package: x\n", strings.Replace(records, "SHA256", "SHA1", 1), "Package: x\nVersion: 1\nArchitecture: all\nSHA256: abc\n"} {
		if _, err := parsePackages(bad); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
}

func TestCompareLock(t *testing.T) {
	locked, err := parsePackages(records)
	if err != nil {
		t.Fatal(err)
	}
	if err := compareLock(locked, locked); err != nil {
		t.Errorf("the same packages are refused: %v", err)
	}
	got := []Package{
		{"libc6", "2.41-13", "amd64", strings.Repeat("c", 64)},
		{"new", "1", "all", strings.Repeat("d", 64)},
	}
	var lock *LockError
	if err := compareLock(locked, got); !errors.As(err, &lock) {
		t.Fatalf("got %v", err)
	}
	want := []string{"ca-certificates: locked 20250419, now missing", "libc6: locked 2.41-12, now 2.41-13", "new: not locked, now 1"}
	if strings.Join(lock.Differences, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", lock.Differences)
	}
	same := append([]Package(nil), locked...)
	same[1].SHA256 = strings.Repeat("e", 64)
	if err := compareLock(locked, same); err == nil || !strings.Contains(err.Error(), "libc6 2.41-12: locked sha256:aaaa") {
		t.Errorf("another file of the same version: %v", err)
	}
}

func TestTreeKey(t *testing.T) {
	packages, err := parsePackages(records)
	if err != nil {
		t.Fatal(err)
	}
	turned := []Package{packages[1], packages[0]}
	if treeKey(osRecipe, packages) != treeKey(osRecipe, turned) {
		t.Error("the order of the packages changes the key")
	}
	if treeKey(osRecipe, packages) == treeKey(toolsRecipe, packages) || treeKey(osRecipe, packages) == treeKey(osRecipe, packages[:1]) {
		t.Error("another recipe or another set of packages has the same key")
	}
}

func TestExplain(t *testing.T) {
	for out, want := range map[string]string{
		"E: write error - write (28: No space left on device)":      "make room",
		"The following signatures couldn't be verified: NO_PUBKEY":  "debian-archive-keyring",
		"Err:1 Temporary failure resolving 'example.invalid'":       "the network",
		"E: unshare() failed: Operation not permitted":              "as root",
		"first\n" + strings.Repeat("x", 1000) + "\nE: setup failed": "E: setup failed",
	} {
		err := explain(errors.New("exit status 25"), out)
		if !strings.Contains(err.Error(), want) || len(err.Error()) > 800 {
			t.Errorf("%.60q: want %q in %v", out, want, err)
		}
	}
}

func TestHasRange(t *testing.T) {
	u := &user.User{Username: "ann", Uid: "1000"}
	for file, want := range map[string]bool{"ann:100000:65536\n": true, "bob:1:2\n1000:100000:65536\n": true, "anna:1:2\n": false, "": false, "ann\n": false} {
		if hasRange(file, u) != want {
			t.Errorf("%q: want %v", file, want)
		}
	}
}
