package source

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/images"
)

// TestRelock writes the committed locks of a Kubernetes version and all that
// goes with it:
//
//	KBUILD_RELOCK=v1.19.12 go test -run TestRelock ./builder/source
func TestRelock(t *testing.T) {
	version := os.Getenv("KBUILD_RELOCK")
	if version == "" {
		t.Skip("KBUILD_RELOCK names no version")
	}
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	all, err := builds(Want{Release: r, CNI: "flannel"}, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	c := compiler{arch: hostArch}
	for _, b := range all {
		if b.Module == "" {
			continue
		}
		pair, err := c.pin(t.Context(), b)
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
			continue
		}
		writeLock(t, b, pair)
	}
}

// writeLock commits a lock: its go.mod, and the lines of its go.sum among all
// others. Lines that no lock needs any more stay.
func writeLock(t *testing.T, b build, pair lockPair) {
	const all = "lock/go.sum"
	old, err := os.ReadFile(all)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.AppendSeq(slices.Collect(strings.Lines(string(old))), strings.Lines(pair.Sum))
	slices.Sort(lines)
	for path, text := range map[string]string{
		"lock/" + b.Name + ".mod": pair.Mod,
		all:                       strings.Join(slices.Compact(lines), ""),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLocksSuffice has the go command find every package of every build that has
// a lock, with nothing but that lock:
//
//	KBUILD_LOCKS=kubernetes-v1.36.3 go test -timeout 60m -run TestLocksSuffice ./builder/source
//
// Names are separated by commas; "all" stands for all.
func TestLocksSuffice(t *testing.T) {
	names := strings.Split(os.Getenv("KBUILD_LOCKS"), ",")
	switch names[0] {
	case "":
		t.Skip("KBUILD_LOCKS names no build")
	case "all":
		names = lockNames(t)
	}
	for _, name := range names {
		b, ok := lockedBuild(t, name)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			pair, ok := b.committed()
			if !ok {
				t.Fatal("it has no lock")
			}
			m, err := download(t.Context(), b.Module, b.Version, b.sum())
			if err != nil {
				t.Fatal(err)
			}
			work := t.TempDir()
			if err := b.write(work, pair, m.Dir); err != nil {
				t.Fatal(err)
			}
			out, err := b.list(t.Context(), hostArch, work)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d packages", strings.Count(string(out), "\n"))
			if b.OpenAPI > 0 {
				if _, err := stagingModules(t.Context(), work); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
