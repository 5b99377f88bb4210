package builder

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Entry is one path that kbuild puts into an image. What a file holds is
// either written out in Text or referred to by Content:
//
//	sha256:HEX           bytes of kbuild's or of the user, by digest
//	component:NAME       the program of a component, as in Plan.Components
//	base:PATH            a file of the base OS
//	program:NAME         a program of kbuild's, built beside it
type Entry struct {
	Path    string   `json:"path"` // absolute
	Kind    string   `json:"kind"` // file, link or dir
	Mode    string   `json:"mode,omitempty"`
	Owner   string   `json:"owner"`             // which part of kbuild puts it there, for people
	Content string   `json:"content,omitempty"` // of a file
	Text    []string `json:"text,omitempty"`    // of a file: its lines
	Set     []string `json:"set,omitempty"`     // variables NAME=VALUE that replace those of the content, an os-release(5) file
	Target  string   `json:"target,omitempty"`  // of a link
}

// tree is a set of entries by path. It refuses a path that is taken and names
// both owners, so two parts of kbuild cannot silently fight over a file.
type tree struct {
	entries map[string]Entry
	content map[string][]byte // of the entries that refer to bytes, by digest
}

func newTree(content map[string][]byte) *tree {
	return &tree{entries: map[string]Entry{}, content: content}
}

func (t *tree) place(e Entry) error {
	e.Path = path.Clean("/" + e.Path)
	if old, taken := t.entries[e.Path]; taken && (old.Kind != "dir" || e.Kind != "dir") {
		return fmt.Errorf("cannot put %s of %s into the image: %s already put one there", e.Path, e.Owner, old.Owner)
	}
	t.entries[e.Path] = e
	return nil
}

// file is a file with the content that ref names.
func file(name, owner string, mode fs.FileMode, ref string) Entry {
	return Entry{Path: name, Kind: "file", Owner: owner, Mode: fmt.Sprintf("%04o", mode), Content: ref}
}

// text is a file with these lines.
func text(name, owner, lines string) Entry {
	e := file(name, owner, 0o644, "")
	e.Text = strings.Split(strings.TrimSuffix(lines, "\n"), "\n")
	return e
}

func dir(name, owner string) Entry {
	return Entry{Path: name, Kind: "dir", Owner: owner, Mode: "0755"}
}

func link(name, owner, target string) Entry {
	return Entry{Path: name, Kind: "link", Owner: owner, Target: target}
}

// placeBytes places a file with content that the plan does not show.
func (t *tree) placeBytes(name, owner string, mode fs.FileMode, data []byte) error {
	ref := digest(data)
	t.content[ref] = data
	return t.place(file(name, owner, mode, ref))
}

// placeAll places entries.
func (t *tree) placeAll(entries ...Entry) error {
	for _, e := range entries {
		if err := t.place(e); err != nil {
			return err
		}
	}
	return nil
}

// overlay places every file of fsys. Files are 0644; those below a bin
// directory or that begin with "#!" are 0755.
func (t *tree) overlay(owner string, fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(string(data), "#!") || path.Base(path.Dir(name)) == "bin" {
			mode = 0o755
		}
		return t.placeBytes(name, owner, mode, data)
	})
}

// list is the entries in the order of their paths.
func (t *tree) list() []Entry {
	return slices.SortedFunc(maps.Values(t.entries), func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}
