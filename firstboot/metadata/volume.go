package metadata

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// entry is a file in the top directory of a volume.
type entry struct {
	name string
	size int64
	// read reads the file; it is called for files of a size that is read.
	read func() ([]byte, error)
}

// maxEntries bounds how much of a top directory is looked at.
const maxEntries = 4096

var errFormat = errors.New("it is neither an ISO 9660 nor a FAT file system")

// readVolume returns those of the wanted files that the volume's top directory
// holds.
func readVolume(r io.ReaderAt, want ...string) (files map[string][]byte, err error) {
	// The readers below check what they index; this is the net beneath.
	defer func() {
		if p := recover(); p != nil {
			files, err = nil, fmt.Errorf("the file system is damaged: %v", p)
		}
	}()
	entries, err := isoRoot(r)
	if errors.Is(err, errFormat) {
		entries, err = fatRoot(r)
	}
	if err != nil {
		return nil, err
	}
	files = map[string][]byte{}
	for _, e := range entries {
		i := slices.IndexFunc(want, func(w string) bool { return sameName(e.name, w) })
		if i < 0 {
			continue
		}
		if e.size > config.MaxSize {
			return nil, fmt.Errorf("file %s has %d bytes, more than the %d that are read: make it smaller", want[i], e.size, config.MaxSize)
		}
		b, err := e.read()
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", want[i], err)
		}
		files[want[i]] = b
	}
	return files, nil
}

// sameName compares names as a volume may spell them: plain ISO 9660 has
// capitals and no "-".
func sameName(a, b string) bool {
	fold := strings.NewReplacer("_", "-")
	return strings.EqualFold(fold.Replace(a), fold.Replace(b))
}

// readAt reads size bytes at off.
func readAt(r io.ReaderAt, off, size int64) ([]byte, error) {
	b := make([]byte, size)
	if n, err := r.ReadAt(b, off); n < len(b) {
		return nil, fmt.Errorf("cannot read %d bytes at offset %d of the volume: %w", size, off, err)
	}
	return b, nil
}
