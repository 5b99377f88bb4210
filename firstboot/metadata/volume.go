package metadata

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// entry is a file or a directory of a volume.
type entry struct {
	name string
	size int64
	// read reads the file; it is called for files of a size that is read.
	read func() ([]byte, error)
	// list lists the directory; nil for a file.
	list func() ([]entry, error)
}

// maxEntries bounds how much of a directory is looked at.
const maxEntries = 4096

var errFormat = errors.New("it is neither an ISO 9660, UDF nor FAT file system")

// readVolume returns those of the wanted files that the volume holds, by the
// paths that they are asked for by ("openstack/latest/user_data").
func readVolume(r io.ReaderAt, want ...string) (files map[string][]byte, err error) {
	// The readers below check what they index; this is the net beneath.
	defer func() {
		if p := recover(); p != nil {
			files, err = nil, fmt.Errorf("the file system is damaged: %v", p)
		}
	}()
	files = map[string][]byte{}
	found := errFormat
	// A disc may have both an ISO 9660 and a UDF file system over the same
	// files; or the former may hold but a note that asks for the latter.
	for _, root := range []func(io.ReaderAt) ([]entry, error){udfRoot, isoRoot, fatRoot} {
		entries, err := root(r)
		if errors.Is(err, errFormat) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = nil
		for _, w := range want {
			b, err := lookUp(entries, w)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, fmt.Errorf("file %s: %w", w, err)
			default:
				files[w] = b
			}
		}
		if len(files) > 0 {
			break
		}
	}
	return files, found
}

// lookUp reads the file at path below the directory that holds entries.
func lookUp(entries []entry, path string) ([]byte, error) {
	name, rest, more := strings.Cut(path, "/")
	find := func(name string) int {
		return slices.IndexFunc(entries, func(e entry) bool { return sameName(e.name, name) && (e.list != nil) == more })
	}
	i := find(name)
	if i < 0 {
		i = find(levelOneName(name))
	}
	switch {
	case i < 0:
		return nil, fs.ErrNotExist
	case more:
		below, err := entries[i].list()
		if err != nil {
			return nil, err
		}
		return lookUp(below, rest)
	case entries[i].size > config.MaxSize:
		return nil, fmt.Errorf("it is %w", errTooLarge)
	}
	return entries[i].read()
}

// sameName compares names as a volume may spell them: plain ISO 9660 has
// capitals and no "-".
func sameName(a, b string) bool {
	fold := strings.NewReplacer("_", "-")
	return strings.EqualFold(fold.Replace(a), fold.Replace(b))
}

// levelOneName is what level 1 of ISO 9660 (ECMA-119, 10.1), which disc writers
// default to, leaves of a name: eight characters, and three after the dot.
func levelOneName(name string) string {
	stem, ext, dot := strings.Cut(name, ".")
	if stem = stem[:min(len(stem), 8)]; !dot {
		return stem
	}
	return stem + "." + ext[:min(len(ext), 3)]
}

// readAt reads size bytes at off.
func readAt(r io.ReaderAt, off, size int64) ([]byte, error) {
	b := make([]byte, size)
	if n, err := r.ReadAt(b, off); n < len(b) {
		return nil, fmt.Errorf("cannot read %d bytes at offset %d of the volume: %w", size, off, err)
	}
	return b, nil
}
