package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// checkOut refuses a directory that holds any of the outputs, unless force says
// that they may be replaced.
func checkOut(out string, files []string, force bool) error {
	if out == "" {
		return errors.New("cannot build: no output directory given; add --out DIR")
	}
	there, err := existing(out, files)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", out, err)
	}
	if len(there) > 0 && !force {
		return fmt.Errorf("%s already exists; give --force to replace it, or another --out", filepath.Join(out, there[0]))
	}
	// Remove what a killed build has left behind.
	old, _ := filepath.Glob(filepath.Join(out, ".building-*"))
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// existing lists which of the outputs are in dir, in order; none if there is no
// dir.
func existing(dir string, outputs []string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if slices.ContainsFunc(outputs, func(o string) bool {
			before, after, some := strings.Cut(o, anyHash)
			return e.Name() == o || some && strings.HasPrefix(e.Name(), before) && strings.HasSuffix(e.Name(), after)
		}) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// moveOutputs renames the outputs into place, SHA256SUMS last: where it is there
// and correct, the build is complete. Outputs of an earlier build are removed.
func moveOutputs(from, to string, outputs []string) error {
	if err := os.Remove(filepath.Join(to, "SHA256SUMS")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := existing(from, outputs)
	if err != nil {
		return err
	}
	old, err := existing(to, outputs)
	if err != nil {
		return err
	}
	for _, f := range old {
		if !slices.Contains(files, f) {
			if err := os.Remove(filepath.Join(to, f)); err != nil {
				return fmt.Errorf("cannot remove the output of an earlier build: %w", err)
			}
		}
	}
	for _, f := range files {
		if f == "SHA256SUMS" {
			continue
		}
		if err := os.Rename(filepath.Join(from, f), filepath.Join(to, f)); err != nil {
			return fmt.Errorf("cannot move output into place: %w", err)
		}
	}
	return os.Rename(filepath.Join(from, "SHA256SUMS"), filepath.Join(to, "SHA256SUMS"))
}
