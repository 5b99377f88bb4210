// Package docs reads the project's documents (README.md, CONTRIBUTING.md and
// docs/*.md), so that tests can check what they show against the program.
//
// Every fenced block says after its language how it is tested, where readers
// do not see it:
//
//	sh run             every command is run, in order, in one directory a document
//	sh parsed: WHY     the commands' flags and arguments are parsed
//	yaml [NAME]        user-data, loaded as a node loads it; a file of the commands that run
//	yaml NAME: WHAT    another file that the commands that run are given
//	yaml NAME: refused user-data that is wrong; the next block is the error
//	text error         that error, whole
//	text quoted        each line is a message of the program; … is what varies
//	text picture       a drawing
//	mermaid            a drawing
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is a fenced block of a document.
type Block struct {
	File string // path below the module's root: "docs/fleet.md"
	Line int    // of its first line
	Lang string // first word after the fence
	Mark string // the rest of that line
	Text string
}

// At is where the block stands, for errors.
func (b Block) At() string { return fmt.Sprintf("%s:%d", b.File, b.Line) }

// Document is one Markdown file.
type Document struct {
	File   string
	Blocks []Block
	Prose  string // the text, with an empty line for each line of a block
}

// Read reads the documents below the module's root.
func Read(root string) ([]Document, error) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	files = append([]string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")}, files...)
	var all []Document
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, f)
		if err != nil {
			return nil, err
		}
		d, err := parse(filepath.ToSlash(name), string(b))
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

var fence = regexp.MustCompile("^\\s*```\\s*(\\S*)\\s*(.*)$")

// parse splits a document into blocks and prose.
func parse(name, text string) (Document, error) {
	d := Document{File: name}
	var in *Block
	n := 0
	for line := range strings.Lines(text) {
		n++
		m := fence.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case in == nil && m != nil:
			in = &Block{File: name, Line: n + 1, Lang: m[1], Mark: strings.TrimSpace(m[2])}
		case m != nil:
			d.Blocks = append(d.Blocks, *in)
			in = nil
		case in != nil:
			in.Text += line
		case strings.HasPrefix(line, "    ") && !strings.HasPrefix(strings.TrimSpace(line), "- "):
			return d, fmt.Errorf("%s:%d: an indented block cannot say how it is tested: use a fence", name, n)
		default:
			d.Prose += line
			continue
		}
		d.Prose += "\n"
	}
	if in != nil {
		return d, fmt.Errorf("%s:%d: the block has no end", name, in.Line)
	}
	return d, nil
}
