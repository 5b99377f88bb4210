package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is what kbuild adds to the base OS: a set of files by absolute path,
// held as values and written at the end. Place refuses a path that is taken
// and names both owners, so two parts of kbuild cannot silently fight over a
// file.
type tree struct {
	entries map[string]entry
}

// entry is one path of a tree. Exactly one of data, file, link and dir says
// what is there.
type entry struct {
	owner string // which part of kbuild put it there, for people
	mode  fs.FileMode
	data  []byte
	file  string // copied from this file of the build machine
	link  string // a symbolic link to this target
	dir   bool
}

func newTree() *tree { return &tree{entries: map[string]entry{}} }

func (t *tree) place(name string, e entry) error {
	name = path.Clean("/" + name)
	if old, taken := t.entries[name]; taken && !(old.dir && e.dir) {
		return fmt.Errorf("cannot put %s of %s into the image: %s already put one there", name, e.owner, old.owner)
	}
	t.entries[name] = e
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
		return t.place(name, entry{owner: owner, mode: mode, data: data})
	})
}

// TreeEntry is a path that kbuild adds to the base OS, as the Plan shows it.
type TreeEntry struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"` // file, link or dir
	Mode   string `json:"mode,omitempty"`
	Owner  string `json:"owner"`
	SHA256 string `json:"sha256,omitempty"` // where the content is known before anything is fetched
	Target string `json:"target,omitempty"`
}

func (t *tree) summary() []TreeEntry {
	var out []TreeEntry
	for _, name := range t.paths() {
		e := t.entries[name]
		s := TreeEntry{Path: name, Kind: "file", Owner: e.owner, Mode: fmt.Sprintf("%04o", e.mode)}
		switch {
		case e.dir:
			s.Kind = "dir"
		case e.link != "":
			s.Kind, s.Target, s.Mode = "link", e.link, ""
		case e.file == "" && e.data != nil:
			sum := sha256.Sum256(e.data)
			s.SHA256 = hex.EncodeToString(sum[:])
		}
		out = append(out, s)
	}
	return out
}

func (t *tree) paths() []string { return slices.Sorted(maps.Keys(t.entries)) }

// write puts the tree over the base OS in root. Directories on the way are
// made with mode 0755; a link of the base in the way of a directory is an
// error, since writing through it could leave root.
func (t *tree) write(root string) error {
	for _, name := range t.paths() {
		e := t.entries[name]
		dst, err := below(root, name)
		if err != nil {
			return fmt.Errorf("cannot put %s into the image: %w", name, err)
		}
		if err := t.writeOne(dst, e); err != nil {
			return fmt.Errorf("cannot put %s of %s into the image: %w", name, e.owner, err)
		}
	}
	return nil
}

func (t *tree) writeOne(dst string, e entry) error {
	if e.dir {
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return err
		}
		return os.Chmod(dst, e.mode)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	if e.link != "" {
		return os.Symlink(e.link, dst)
	}
	if e.file != "" {
		return copyFile(dst, e.file, e.mode)
	}
	if err := os.WriteFile(dst, e.data, e.mode); err != nil {
		return err
	}
	return os.Chmod(dst, e.mode)
}

// below resolves the directory of name under root, following the base's own
// links (as /lib → usr/lib) but never out of root.
func below(root, name string) (string, error) {
	dir := root
	for _, part := range strings.Split(strings.Trim(path.Dir(name), "/"), "/") {
		if part == "" {
			continue
		}
		next := filepath.Join(dir, part)
		if target, err := os.Readlink(next); err == nil {
			if path.IsAbs(target) {
				next = filepath.Join(root, target)
			} else {
				next = filepath.Join(dir, target)
			}
			if next != root && !strings.HasPrefix(next, root+"/") {
				return "", fmt.Errorf("the link %s leads out of the image", filepath.Join(dir, part))
			}
		}
		dir = next
	}
	return filepath.Join(dir, path.Base(name)), nil
}

func copyFile(dst, src string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
