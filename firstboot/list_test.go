package firstboot

import (
	"testing"

	"github.com/kbuild/kbuild/firstboot/converge"
)

// TestList: of every role each step is whole and stands once, what a step needs
// comes before it, and the list begins as that of a node without a role does,
// which ends knowing what the node is.
func TestList(t *testing.T) {
	head := List("")
	for _, role := range converge.Roles() {
		seen := map[string]bool{}
		for i, s := range List(role) {
			if s.Name == "" || s.Done == nil || s.Do == nil {
				t.Errorf("%s: step %q is not whole", role, s.Name)
			}
			if seen[s.Name] {
				t.Errorf("%s: step %s is there twice", role, s.Name)
			}
			for _, n := range s.Needs {
				if !seen[n] {
					t.Errorf("%s: step %s needs %s, which does not come before it", role, s.Name, n)
				}
			}
			if i < len(head) && s.Name != head[i].Name {
				t.Errorf("%s: step %d is %s, not %s", role, i+1, s.Name, head[i].Name)
			}
			seen[s.Name] = true
		}
		if !seen["metadata"] {
			t.Errorf("%s: nothing says what the node is", role)
		}
	}
}
