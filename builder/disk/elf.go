package disk

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// libraries returns the paths, below root, of the shared libraries that the
// ELF file needs directly, its interpreter among them; none for other files.
func libraries(root, file string) ([]string, error) {
	f, err := elf.Open(filepath.Join(root, file))
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || strings.Contains(err.Error(), "EOF") {
			return nil, nil // a script, or data
		}
		return nil, err
	}
	defer f.Close()
	dirs := []string{"usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64",
		"usr/lib/x86_64-linux-gnu/systemd"} // systemd's programs carry this path, its own libraries inherit it
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		if paths, err := f.DynString(tag); err == nil {
			for _, p := range strings.Split(strings.Join(paths, ":"), ":") {
				p = strings.ReplaceAll(strings.ReplaceAll(p, "${ORIGIN}", "$ORIGIN"), "$ORIGIN", filepath.Dir(file))
				if p != "" {
					dirs = append(dirs, strings.TrimPrefix(filepath.Clean("/"+p), "/"))
				}
			}
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var found []string
	for _, name := range names {
		path, err := search(root, dirs, name)
		if err != nil {
			return nil, fmt.Errorf("%s needs %s: %w", file, name, err)
		}
		found = append(found, path)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			found = append(found, strings.TrimRight(string(b), "\x00"))
		}
	}
	return found, nil
}

func search(root string, dirs []string, name string) (string, error) {
	for _, dir := range dirs {
		if _, err := os.Lstat(filepath.Join(root, dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("not in %s: %w", strings.Join(dirs, ", "), fs.ErrNotExist)
}
