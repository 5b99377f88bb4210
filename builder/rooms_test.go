package builder

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/test-vm/golden"
)

// TestRoomsInDocs: docs/design.md says who may import whom as TestImports has
// it. make golden writes the table.
func TestRoomsInDocs(t *testing.T) {
	table := "| package, and all below it that has no line of its own | may import |\n|---|---|\n"
	for _, room := range slices.Sorted(maps.Keys(may)) {
		others := slices.DeleteFunc(slices.Clone(may[room]), func(r string) bool { return r == room })
		if len(others) == 0 {
			others = []string{"nothing of kbuild"}
		}
		slices.Sort(others)
		table += "| `" + room + "` | " + strings.Join(others, ", ") + " |\n"
	}
	golden.Section(t, "../docs/design.md", "<!-- rooms -->", table)
}
