package source

import (
	"os"
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
		for ext, text := range map[string]string{".mod": pair.Mod, ".sum": pair.Sum} {
			if err := os.WriteFile("lock/"+b.Name+ext, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
