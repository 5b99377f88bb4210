package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/firstboot/host"
)

const (
	dirMode    = 0o700
	secretMode = 0o600
	publicMode = 0o644
)

// ErrExists says that a directory already exists.
var ErrExists = errors.New("it already exists")

// Create writes an identity into a new directory of h: its parent must be
// there, and it must not. All is written into a directory beside it, which is
// then renamed; what a run that was killed has left there is removed by the
// next.
func Create(h *host.Host, dir string, id *Identity, lock Lock) error {
	if _, err := h.Root.Lstat(dir); err == nil {
		return fmt.Errorf("cannot create %s: %w", dir, ErrExists)
	}
	files, err := lock.seal(id.files())
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".kbuild-new")
	unlock, err := claim(h, tmp)
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", dir, err)
	}
	defer unlock()
	err = fill(h, tmp, files)
	if err == nil {
		err = h.Do("rename "+dir, func() error { return renameNew(h, tmp, dir) })
	}
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", dir, errors.Join(err, h.Root.RemoveAll(tmp)))
	}
	return nil
}

// claim creates the directory tmp, in place of an old one, for this process alone.
func claim(h *host.Host, tmp string) (unlock func(), err error) {
	if err := h.Root.Mkdir(tmp, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := h.Root.Open(tmp)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, errors.New("another kbuild is creating it: wait for it to finish")
	}
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, h.Root.RemoveAll(filepath.Join(tmp, name)))
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return func() { d.Close() }, nil
}

func fill(h *host.Host, dir string, files []file) error {
	for _, sub := range []string{pkiDir, pkiDir + "/etcd"} {
		if err := h.MkdirAll(filepath.Join(dir, sub), dirMode); err != nil {
			return err
		}
	}
	for _, f := range files {
		mode := fs.FileMode(publicMode)
		if f.secret {
			mode = secretMode
		}
		if err := h.WriteFile(filepath.Join(dir, f.name), f.data, mode); err != nil {
			return err
		}
	}
	return nil
}

// renameNew renames a directory to a name that is not taken, durably.
func renameNew(h *host.Host, from, to string) error {
	parent, err := h.Root.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer parent.Close()
	fd := int(parent.Fd())
	err = unix.Renameat2(fd, filepath.Base(from), fd, filepath.Base(to), unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// This file system cannot refuse; Create has looked a moment ago.
		err = unix.Renameat(fd, filepath.Base(from), fd, filepath.Base(to))
	}
	if err != nil {
		return os.NewSyscallError("rename", err)
	}
	return parent.Sync()
}
