package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/progress"
)

func TestEntry(t *testing.T) {
	s := store{t.TempDir()}
	made := 0
	var said strings.Builder
	get := func() (string, error) {
		return s.entry(t.Context(), "bin", "k", progress.To(&said), func(_ context.Context, dir string) error {
			made++
			return os.WriteFile(filepath.Join(dir, "program"), []byte("right"), 0o755)
		})
	}
	dir, err := get()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(); err != nil || made != 1 {
		t.Fatalf("the second time: made %d times, %v", made, err)
	}
	for name, harm := range map[string]func() error{
		"overwritten":   func() error { return os.WriteFile(filepath.Join(dir, "program"), []byte("wrong"), 0o755) },
		"cut off":       func() error { return os.Truncate(filepath.Join(dir, "program"), 2) },
		"removed":       func() error { return os.Remove(filepath.Join(dir, "program")) },
		"added to":      func() error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o644) },
		"without list":  func() error { return os.Remove(dir + ".json") },
		"with bad list": func() error { return os.WriteFile(dir+".json", []byte("{"), 0o644) },
		"gone":          func() error { return os.RemoveAll(dir) },
	} {
		before := made
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if _, err := get(); err != nil || made != before+1 {
			t.Errorf("%s: made again %d times, %v", name, made-before, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "program")); string(b) != "right" {
			t.Errorf("%s: holds %q, %v", name, b, err)
		}
	}
	if !strings.Contains(said.String(), "damaged") {
		t.Errorf("nothing was said of the damage: %q", said.String())
	}
	// Another time on the same bytes is no damage.
	before := made
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("right"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := get(); err != nil || made != before {
		t.Errorf("written again with the same bytes: made again %d times, %v", made-before, err)
	}
}

func TestEntryUnfinished(t *testing.T) {
	s := store{t.TempDir()}
	broken := errors.New("broken")
	for range 2 {
		_, err := s.entry(t.Context(), "bin", "k", progress.To(new(strings.Builder)), func(_ context.Context, dir string) error {
			if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Fatalf("got %v", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "bin", "*"))
	if err != nil || len(left) != 1 || filepath.Ext(left[0]) != ".lock" {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEntryOnce(t *testing.T) {
	s := store{t.TempDir()}
	made := make(chan bool, 8)
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := s.entry(t.Context(), "bin", "k", progress.To(new(strings.Builder)), func(_ context.Context, dir string) error {
				made <- true
				return os.WriteFile(filepath.Join(dir, "program"), nil, 0o755)
			})
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(made) != 1 {
		t.Errorf("made %d times", len(made))
	}
}
