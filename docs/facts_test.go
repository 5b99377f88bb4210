package docs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
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

// The README names the oldest and the newest version, and versions.md has a table
// of all; make golden writes it.
func TestVersions(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := images.Known()
	if span := "from " + known[0].Oldest + " to " + known[len(known)-1].Newest; !strings.Contains(string(readme), span) {
		t.Errorf("the README does not say %q", span)
	}
	table := "| Kubernetes | etcd | CoreDNS | pause | containerd | config API | support ends |\n|---|---|---|---|---|---|---|\n"
	for _, k := range slices.Backward(known) {
		r, err := images.Lookup(k.Newest)
		if err != nil {
			t.Fatal(err)
		}
		table += fmt.Sprintf("| %s – %s | %s | %s | %s | %s | %s | %s |\n", k.Oldest, k.Newest, r.Etcd.Tag, r.CoreDNS.Tag, r.Pause.Tag,
			cmp.Or(source.Containerd(r), "Debian's"), strings.Join(r.ConfigAPIs, ", "), k.Ends)
	}
	golden.Section(t, "versions.md", "<!-- generated: versions -->", table)
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
