// Package golden compares what code makes with files that people have read and
// committed. UPDATE_GOLDEN=1 (make golden) writes the files anew; what changed is
// then for the reader of the diff. Only tests import it.
package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update says whether golden files are written anew.
func update() bool { return os.Getenv("UPDATE_GOLDEN") != "" }

// Compare fails the test where file, a path from the test's directory, does not
// hold got.
func Compare(t testing.TB, file, got string) {
	t.Helper()
	if update() {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make golden writes it", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what the code makes (-file +now); make golden writes it:\n%s", file, d)
	}
}

// Section fails the test where file does not hold got between the line begin and
// the next line "<!-- end -->".
func Section(t testing.TB, file, begin, got string) {
	t.Helper()
	const end = "<!-- end -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(b), begin+"\n")
	have, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no section between %s and %s", file, begin, end)
	}
	if update() && have != got {
		if err := os.WriteFile(file, []byte(before+begin+"\n"+got+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(have, got); d != "" {
		t.Errorf("%s, after %s, is not what the code makes (-file +now); make golden writes it:\n%s", file, begin, d)
	}
}
