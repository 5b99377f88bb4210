package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// recorder is a test that fails without ending this one.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Helper()               {}

func TestCompareAndSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "doc.md")
	const doc = "# a\n<!-- table -->\nold\n<!-- end -->\nb\n"
	for _, c := range []struct {
		update string
		fails  bool
		do     func(t testing.TB)
		want   string
	}{
		{"1", false, func(t testing.TB) { Compare(t, file, doc) }, doc},
		{"", false, func(t testing.TB) { Compare(t, file, doc) }, doc},
		{"", true, func(t testing.TB) { Compare(t, file, "x") }, doc},
		{"", true, func(t testing.TB) { Section(t, file, "<!-- table -->", "new\n") }, doc},
		{"1", false, func(t testing.TB) { Section(t, file, "<!-- table -->", "new\n") }, "# a\n<!-- table -->\nnew\n<!-- end -->\nb\n"},
		{"", false, func(t testing.TB) { Section(t, file, "<!-- table -->", "new\n") }, "# a\n<!-- table -->\nnew\n<!-- end -->\nb\n"},
	} {
		t.Setenv("UPDATE_GOLDEN", c.update)
		r := &recorder{TB: t}
		c.do(r)
		b, err := os.ReadFile(file)
		if r.failed != c.fails || err != nil || string(b) != c.want {
			t.Errorf("update %q: failed %v, want %v; the file holds %q, %v", c.update, r.failed, c.fails, b, err)
		}
	}
}
