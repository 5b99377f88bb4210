package firstboot

import (
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
)

// The list reads as the issue has it, every step is whole, and what a step
// needs comes before it.
func TestList(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range List(string(config.RoleInit)) {
		if s.Name == "" || s.Done == nil || s.Do == nil {
			t.Errorf("step %q is not whole", s.Name)
		}
		if seen[s.Name] {
			t.Errorf("step %s is there twice", s.Name)
		}
		for _, n := range s.Needs {
			if !seen[n] {
				t.Errorf("step %s needs %s, which does not come before it", s.Name, n)
			}
		}
		seen[s.Name] = true
	}
}
