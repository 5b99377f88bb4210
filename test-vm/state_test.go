package testvm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An image that was built again with the same bytes is the same image; one
// with other bytes is not, and an overlay over the old one is refused.
func TestBacking(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := func() Image {
		t.Helper()
		i, err := OpenImage(dir)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	s := &scratch{dir: t.TempDir()}
	write("disk.raw", "one")
	write("manifest.json", `{"version":"v1.19.12","files":[{"name":"disk.raw","sha256":"aa"}]}`)
	if err := s.recordBacking(open()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "disk.raw"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.checkBacking(open()); err != nil {
		t.Errorf("the same bytes, written again: %v", err)
	}
	write("manifest.json", `{"version":"v1.19.12","files":[{"name":"disk.raw","sha256":"bb"}]}`)
	if err := s.checkBacking(open()); !errors.Is(err, ErrOtherImage) {
		t.Errorf("other bytes: %v, want ErrOtherImage", err)
	}
	// Without a manifest, size and time must do.
	if err := os.Remove(filepath.Join(dir, "manifest.json")); err != nil {
		t.Fatal(err)
	}
	if err := s.recordBacking(open()); err != nil {
		t.Fatal(err)
	}
	write("disk.raw", "three")
	if err := s.checkBacking(open()); !errors.Is(err, ErrOtherImage) {
		t.Errorf("another disk: %v, want ErrOtherImage", err)
	}
}
