package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	backend "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

// volumeLabel is the label that makes a volume a NoCloud volume.
const volumeLabel = "cidata"

// Volume writes a NoCloud volume: an ISO 9660 file system with Rock Ridge and
// Joliet names and these files at its top. The file out appears whole or not at
// all, with mode 0600, and replaces an existing one. Until then, its parts are in
// a directory beside it that only its owner can enter.
func Volume(out string, files map[string][]byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make the volume %s: %w", out, err)
		}
	}()
	tmp, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+".*") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	tree, iso := filepath.Join(tmp, "tree"), filepath.Join(tmp, "iso")
	if err := os.Mkdir(tree, dirMode); err != nil {
		return err
	}
	size := int64(1 << 20) // the file systems' own tables, amply
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(tree, name), data, secretMode); err != nil {
			return err
		}
		size += int64(len(data)) + 4096
	}
	if err := writeISO(iso, tree, size); err != nil {
		return err
	}
	return os.Rename(iso, out)
}

// writeISO writes a file system of what is in tree.
func writeISO(name, tree string, size int64) error {
	b, err := backend.CreateFromPath(name, size)
	if err != nil {
		return err
	}
	defer b.Close()
	fs, err := iso9660.Create(b, size, 0, 2048, tree)
	if err != nil {
		return err
	}
	if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: volumeLabel}); err != nil {
		return err
	}
	f, err := b.Sys()
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(secretMode), f.Sync())
}
