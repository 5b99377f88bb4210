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
