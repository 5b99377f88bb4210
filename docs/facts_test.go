package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder"
	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/images"
)

// The table of steps in design.md has each step of each role, in order.
func TestSteps(t *testing.T) {
	b, err := os.ReadFile("design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "<!-- steps -->\n")
	table, _, _ := strings.Cut(rest, "<!-- end -->")
	documented := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || !strings.Contains(line, "`") {
			continue
		}
		for i, role := range []string{"init", "control-plane", "worker"} {
			if strings.TrimSpace(cells[i+2]) != "" {
				documented[role] = append(documented[role], strings.Trim(cells[1], " `"))
			}
		}
		if len(strings.Fields(cells[5])) < 3 {
			t.Errorf("the step %s is not explained", cells[1])
		}
	}
	for _, role := range []string{"init", "control-plane", "worker"} {
		var names []string
		for _, s := range firstboot.List(role) {
			names = append(names, s.Name)
		}
		slices.Sort(names)
		slices.Sort(documented[role])
		if !slices.Equal(names, documented[role]) {
			t.Errorf("role %s has the steps\n%q\nand design.md says\n%q", role, names, documented[role])
		}
	}
}

// The README names every range of versions that is known, and says of each
// whether an image of it can be built.
func TestVersions(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var named, built, known, buildable []string
	for _, r := range images.Known() {
		known = append(known, r.Oldest+"-"+r.Newest)
	}
	for _, r := range builder.Versions() {
		buildable = append(buildable, r.Oldest+"-"+r.Newest)
	}
	for _, row := range regexp.MustCompile(`(?m)^\| (v1\.\d+\.\d+) – (v1\.\d+\.\d+) \| (yes|no);`).FindAllStringSubmatch(string(b), -1) {
		named = append(named, row[1]+"-"+row[2])
		if row[3] == "yes" {
			built = append(built, row[1]+"-"+row[2])
		}
	}
	if len(known) == 0 || !slices.Equal(named, known) || !slices.Equal(built, buildable) {
		t.Errorf("the README names %q and builds %q; known are %q, and buildable %q", named, built, known, buildable)
	}
}

// The paths that design.md lists are the program's.
func TestPaths(t *testing.T) {
	b, err := os.ReadFile("design.md")
	if err != nil {
		t.Fatal(err)
	}
	known := messages(t)
	rows := regexp.MustCompile("(?m)^\\| `(/[^`]+)` \\|").FindAllStringSubmatch(string(b), -1)
	for _, row := range rows {
		if !slices.Contains(known, row[1]) {
			t.Errorf("the code does not know %s", row[1])
		}
	}
	if len(rows) < 5 {
		t.Errorf("only %d paths", len(rows))
	}
}

// CONTRIBUTING.md names every scenario, and no other.
func TestScenarios(t *testing.T) {
	b, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../test-vm/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var there, named []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`func TestScenario([A-Za-z0-9]+)\(`).FindAllSubmatch(text, -1) {
			there = append(there, string(m[1]))
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[A-Z][^|]*`) \\|").FindAllStringSubmatch(string(b), -1) {
		named = append(named, strings.Split(strings.Trim(row[1], "`"), "`, `")...)
	}
	slices.Sort(there)
	slices.Sort(named)
	if len(there) == 0 || !slices.Equal(there, named) {
		t.Errorf("the scenarios are\n%q\nand CONTRIBUTING.md names\n%q", there, named)
	}
}
