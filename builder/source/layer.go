package source

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/progress"
)

// file is one entry of a container image's layer. Its owner is root and its
// time the epoch.
type file struct {
	Path string // without leading slash
	Mode int64
	// One of these says what it is; with none, it is a directory.
	From string // regular file: copied from here
	Data string // regular file: this text
	Link string // symbolic link to this target
	Hard string // hard link to this path in the same layer
	// ID identifies what From holds, so that it need not be read to know
	// that a layer has not changed.
	ID string
}

// layer is a set of files with a name for progress lines.
type layer struct {
	name  string
	files []file
}

// complete adds the directories that hold files, and sorts.
func (l layer) complete() ([]file, error) {
	all := map[string]file{}
	for _, f := range l.files {
		if old, ok := all[f.Path]; ok && old != f {
			return nil, fmt.Errorf("cannot make the layer %s: two files have the path %s", l.name, f.Path)
		}
		all[f.Path] = f
	}
	for _, f := range l.files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = file{Path: dir, Mode: 0o755}
			}
		}
	}
	var sorted []file
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b file) int {
		// Hard links after what they link to.
		return cmp.Or(cmp.Compare(min(len(a.Hard), 1), min(len(b.Hard), 1)), strings.Compare(a.Path, b.Path))
	})
	return sorted, nil
}

// writeLayer writes a layer as a tar archive.
func writeLayer(ctx context.Context, w io.Writer, l layer, epoch time.Time) error {
	files, err := l.complete()
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := writeEntry(tw, f, epoch); err != nil {
			return fmt.Errorf("cannot put %s into the layer %s: %w", f.Path, l.name, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, f file, epoch time.Time) error {
	h := &tar.Header{Name: f.Path, Mode: f.Mode, ModTime: epoch.Truncate(time.Second), Typeflag: tar.TypeReg}
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.Hard
	case f.From == "" && f.Data == "":
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case f.From == "":
		h.Size = int64(len(f.Data))
	default:
		in, err := os.Open(f.From)
		if err != nil {
			return err
		}
		defer in.Close()
		st, err := in.Stat()
		if err != nil {
			return err
		}
		h.Size = st.Size()
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(tw, in)
		return err
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(tw, f.Data)
	return err
}

// layerFile makes a layer's archive in the store and returns its path.
func (s store) layerFile(ctx context.Context, l layer, epoch time.Time, log progress.Log) (string, error) {
	files, err := l.complete()
	if err != nil {
		return "", err
	}
	for i := range files {
		if files[i].From != "" && files[i].ID == "" {
			if files[i].ID, err = fileDigest(files[i].From); err != nil {
				return "", fmt.Errorf("cannot make the layer %s: %w", l.name, err)
			}
		}
		files[i].From = "" // only the content matters, not where it is
	}
	dir, err := s.entry(ctx, "layer", key(files, epoch.Unix()), log, func(ctx context.Context, dir string) error {
		f, err := os.Create(filepath.Join(dir, "layer.tar"))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := writeLayer(ctx, f, l, epoch); err != nil {
			return err
		}
		return f.Close()
	})
	return filepath.Join(dir, "layer.tar"), err
}
