package base_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbuild/kbuild/builder/base"
)

// The trees of these tests stay in the user's cache: making them costs
// minutes, and what is tested is also what the builder uses.
func config(t *testing.T) base.Config {
	t.Helper()
	if os.Getenv("KBUILD_INTEGRATION") != "1" {
		t.Skip("set KBUILD_INTEGRATION=1 to make real trees")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := os.Getenv("KBUILD_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "kbuild")
	}
	return base.Config{Cache: dir, Log: t.Logf}
}

func TestTrees(t *testing.T) {
	c := config(t)
	for name, f := range map[string]func(context.Context, base.Config) (base.Tree, error){"os": base.OS, "tools": base.Tools, "vm": base.VM} {
		t.Run(name, func(t *testing.T) {
			first, err := f(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d packages", first.Dir, len(first.Packages))
			begin := time.Now()
			again, err := f(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("cached: %s", time.Since(begin))
			if again.Key != first.Key {
				t.Errorf("the second time gave another tree: %s, then %s", first.Key, again.Key)
			}
		})
	}
}

func TestLockRefuses(t *testing.T) {
	c := config(t)
	tree, err := base.OS(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Lock = append([]base.Package(nil), tree.Packages...)
	if again, err := base.OS(t.Context(), c); err != nil || again.Key != tree.Key {
		t.Fatalf("the lock of a cached tree is refused: %v", err)
	}
	c.Lock[0].Version += "~older"
	_, err = base.OS(t.Context(), c)
	var lock *base.LockError
	if !errors.As(err, &lock) || len(lock.Differences) != 1 {
		t.Fatalf("want one difference, got %v", err)
	}
	t.Log(err)
}
