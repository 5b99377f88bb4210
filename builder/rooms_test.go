package builder

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestRoomsInDocs: docs/design.md says who may import whom as TestImports has
// it. UPDATE_GOLDEN=1 writes the table.
func TestRoomsInDocs(t *testing.T) {
	const file, begin, end = "../docs/design.md", "<!-- rooms -->\n", "<!-- end -->"
	table := "| package, and all below it that has no line of its own | may import |\n|---|---|\n"
	for _, room := range slices.Sorted(maps.Keys(may)) {
		others := slices.DeleteFunc(slices.Clone(may[room]), func(r string) bool { return r == room })
		if len(others) == 0 {
			others = []string{"nothing of kbuild"}
		}
		slices.Sort(others)
		table += "| `" + room + "` | " + strings.Join(others, ", ") + " |\n"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(b), begin)
	have, after, ok := strings.Cut(rest, end)
	switch {
	case !ok:
		t.Errorf("%s has no table of rooms", file)
	case have != table && os.Getenv("UPDATE_GOLDEN") != "":
		if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case have != table:
		t.Errorf("%s does not say who may import whom; UPDATE_GOLDEN=1 writes it:\n%s", file, table)
	}
}
