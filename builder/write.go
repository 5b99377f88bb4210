package builder

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/source"
)

// contents looks up what the entries of a Plan refer to.
type contents struct {
	bytes     map[string][]byte // by "sha256:HEX"
	programs  source.Output
	base      base.Tree
	firstboot string // the kbuild-firstboot binary
}

// open opens the content that ref names.
func (c contents) open(ref string) (io.ReadCloser, error) {
	kind, name, _ := strings.Cut(ref, ":")
	switch kind {
	case "sha256":
		if data, ok := c.bytes[ref]; ok {
			return io.NopCloser(strings.NewReader(string(data))), nil
		}
	case "component":
		if program := c.programs.Binaries[name]; program != "" {
			return os.Open(program)
		}
		return nil, fmt.Errorf("the source gave no %s", name)
	case "base":
		return os.Open(filepath.Join(c.base.Dir, name))
	case "program":
		if name == "kbuild-firstboot" {
			return os.Open(c.firstboot)
		}
	}
	return nil, fmt.Errorf("a bug in kbuild: nothing is known by %q", ref)
}

// writeTree puts entries over what is in root. Directories on the way are made
// with mode 0755; a link in root that leads out of it is an error.
func writeTree(root string, entries []Entry, c contents) error {
	for _, e := range entries {
		dst, err := below(root, e.Path)
		if err == nil {
			err = writeEntry(dst, e, c)
		}
		if err != nil {
			return fmt.Errorf("cannot put %s of %s into the image: %w", e.Path, e.Owner, err)
		}
	}
	return nil
}

func writeEntry(dst string, e Entry, c contents) error {
	if e.Kind == "link" {
		return replace(dst, func() error { return os.Symlink(e.Target, dst) })
	}
	n, err := strconv.ParseUint(e.Mode, 8, 32)
	if err != nil {
		return fmt.Errorf("mode %q: %w", e.Mode, err)
	}
	mode := fs.FileMode(n)
	if e.Kind == "dir" {
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return err
		}
		return os.Chmod(dst, mode)
	}
	in := io.NopCloser(strings.NewReader(strings.Join(e.Text, "\n") + "\n"))
	if e.Content != "" {
		if in, err = c.open(e.Content); err != nil {
			return err
		}
	}
	defer in.Close()
	var from io.Reader = in
	if len(e.Set) > 0 {
		data, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		from = strings.NewReader(disk.SetOSRelease(string(data), e.Set))
	}
	return replace(dst, func() error { return writeFile(dst, from, mode) })
}

// replace removes dst, makes missing directories above it, and calls do, which
// makes it again.
func replace(dst string, do func() error) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return do()
}

func writeFile(dst string, from io.Reader, mode fs.FileMode) error {
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, from); err != nil {
		out.Close()
		return err
	}
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return err
	}
	return out.Close()
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
