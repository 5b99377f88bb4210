package docs

import (
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/ignition"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

func read(t *testing.T) []Document {
	t.Helper()
	all, err := Read("..")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every block says how it is tested, and those that are only parsed or drawn
// are few and known.
func TestBlocks(t *testing.T) {
	count := map[string]int{}
	for _, d := range read(t) {
		for _, b := range d.Blocks {
			kind, why, _ := strings.Cut(b.Mark, ":")
			switch {
			case b.Lang == "sh" && b.Mark == "run", b.Lang == "yaml", b.Lang == "text" && (b.Mark == "quoted" || b.Mark == "error"):
			case b.Lang == "mermaid" && b.Mark == "", b.Lang == "text" && b.Mark == "picture":
				kind = "picture"
			case b.Lang == "sh" && kind == "parsed" && len(strings.Fields(why)) >= 2:
			default:
				t.Errorf("%s: the block says %q: how is it tested? see the package comment", b.At(), strings.TrimSpace(b.Lang+" "+b.Mark))
			}
			if b.Lang == "yaml" {
				kind = "yaml"
			}
			count[kind]++
		}
	}
	t.Logf("%v", count)
	for kind, want := range map[string]int{"run": 13, "yaml": 5, "quoted": 35} {
		if count[kind] < want {
			t.Errorf("only %d blocks are %q, of at least %d: are the documents read right?", count[kind], kind, want)
		}
	}
	if got, want := count["picture"], 7; got != want {
		t.Errorf("%d pictures, which nothing tests; want %d", got, want)
	}
}

// What the documents show as user-data is user-data, and what they show as
// Butane is Butane.
func TestExamples(t *testing.T) {
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	baked := images.Baked{Arch: "amd64", CNI: "flannel", Release: release, PodCIDR: "10.244.0.0/16"}
	machine := config.Machine{Hostname: "node", MachineID: strings.Repeat("ab", 16), Random: rand.Reader,
		Links:  []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}},
		Routes: []config.Route{{Link: "eth0"}}}
	for _, d := range read(t) {
		for i, b := range d.Blocks {
			name, what, other := strings.Cut(b.Mark, ": ")
			switch {
			case b.Lang != "yaml":
			case what == "refused":
				_, _, err := config.Load(baked, machine, config.Document{Source: name, Data: []byte(b.Text)})
				if i+1 == len(d.Blocks) || d.Blocks[i+1].Mark != "error" || err == nil || strings.TrimSpace(err.Error()) != strings.TrimSpace(d.Blocks[i+1].Text) {
					t.Errorf("%s: the next block is not the error that a node shows:\n%v", b.At(), err)
				}
			case !other:
				_, warnings, err := config.Load(baked, machine, config.Document{Source: b.At(), Data: []byte(b.Text)})
				if err != nil || len(warnings) > 0 {
					t.Errorf("%v %v", err, warnings)
				}
			case what == "a Butane config":
				dir := t.TempDir()
				for _, m := range regexp.MustCompile(`local: (\S+)`).FindAllStringSubmatch(b.Text, -1) {
					if err := os.WriteFile(filepath.Join(dir, m[1]), []byte("x"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := ignition.Translate([]byte(b.Text), dir); err != nil {
					t.Errorf("%s: %v", b.At(), err)
				}
			case !slices.ContainsFunc(d.Blocks, func(o Block) bool {
				return o.Lang == "sh" && o.Mark == "run" && strings.Contains(o.Text, name)
			}):
				t.Errorf("%s: no command that runs is given this file", b.At())
			}
		}
	}
}

// A make command names a target and variables that the Makefile has.
func TestMake(t *testing.T) {
	b, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	commands, err := Commands(read(t), "make")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		for _, arg := range c.Args[1:] {
			want := `(?m)^` + regexp.QuoteMeta(arg) + `:`
			if name, _, ok := strings.Cut(arg, "="); ok {
				want = `(?m)^` + name + `\s*\?=|\$\(` + name + `\)|\b` + name + `=1 `
			}
			if !regexp.MustCompile(want).Match(b) {
				t.Errorf("%s: the Makefile has no %s", c.At, arg)
			}
		}
	}
	if len(commands) < 30 {
		t.Errorf("only %d make commands", len(commands))
	}
}

// Every other program that a block calls is a well-known one, so that no
// misspelt command of ours goes untested.
func TestPrograms(t *testing.T) {
	known := strings.Fields("kbuild kbuild-firstboot make kubectl openssl qemu-system-x86_64 dd cp truncate export systemctl journalctl")
	for _, d := range read(t) {
		for _, b := range d.Blocks {
			if b.Lang != "sh" {
				continue
			}
			commands, err := parseShell(b)
			if err != nil {
				t.Error(err)
			}
			for _, c := range commands {
				if !slices.Contains(known, c.Args[0]) {
					t.Errorf("%s: nothing is known of %s", c.At, c.Args[0])
				}
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)]*)\)`)

// Links lead somewhere.
func TestLinks(t *testing.T) {
	all := read(t)
	anchors := map[string][]string{}
	for _, d := range all {
		for line := range strings.Lines(d.Prose) {
			if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
				anchors[d.File] = append(anchors[d.File], anchor(title))
			}
		}
	}
	n := 0
	for _, d := range all {
		for _, m := range link.FindAllStringSubmatch(d.Prose, -1) {
			n++
			file, fragment, _ := strings.Cut(m[1], "#")
			target := d.File
			if file != "" {
				target = filepath.Join(filepath.Dir(d.File), file)
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: link to %s: %v", d.File, m[1], err)
			} else if fragment != "" && !slices.Contains(anchors[target], fragment) {
				t.Errorf("%s: %s has no section #%s", d.File, target, fragment)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d links", n)
	}
}

// anchor is what GitHub makes of a title.
func anchor(title string) string {
	keep := func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c == '-', c == '_', c >= '0' && c <= '9', c >= 'a' && c <= 'z':
			return c
		}
		return -1
	}
	return strings.Map(keep, strings.ToLower(strings.TrimSpace(title)))
}

// Tables that the code makes stand in the documents as it makes them.
// make golden writes them.
func TestTables(t *testing.T) {
	for name, table := range map[string]string{"fields": config.MetadataTable(), "sources": metadata.Table()} {
		golden.Section(t, "user-data.md", "<!-- generated: "+name+" -->", table)
	}
}
