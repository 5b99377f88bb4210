package testvm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

// writeISO makes an ISO 9660 volume with Rock Ridge and Joliet names, as NoCloud volumes
// have, of files in its root directory.
func writeISO(name, label string, files map[string]string) error {
	dir, err := os.MkdirTemp("", "kbuild-iso-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	size := int64(1 << 20)
	for f, data := range files {
		if filepath.Base(f) != f {
			return fmt.Errorf("cannot put %q into volume %s: want a file name without a directory", f, label)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(data), 0o644); err != nil {
			return err
		}
		size += int64(len(data)) + 4096
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := file.CreateFromPath(name, size)
	if err != nil {
		return err
	}
	fs, err := iso9660.Create(b, size, 0, 2048, dir)
	if err == nil {
		err = fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: label})
	}
	if err := errors.Join(err, b.Close()); err != nil {
		return fmt.Errorf("cannot make the volume %s: %w", label, err)
	}
	return os.Chmod(name, 0o600)
}
