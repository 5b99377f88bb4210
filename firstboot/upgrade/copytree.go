package upgrade

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
)

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyTree copies a file, a link or a directory and all that is in it, with
// modes, and brings it to the disk. A path that is not there is left out.
func copyTree(h *host.Host, from, to string) error {
	from, to = strings.TrimPrefix(from, "/"), strings.TrimPrefix(to, "/")
	return fs.WalkDir(h.Root.FS(), from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == from {
				return ignoreMissing(err)
			}
			return err
		}
		dst := path.Join(to, strings.TrimPrefix(p, from))
		info, err := h.Root.Lstat(p)
		if p == from {
			info, err = h.Root.Stat(p) // /etc/kubernetes is a link to the disk
		}
		if err != nil {
			return err
		}
		if err := h.Root.MkdirAll(path.Dir(dst), 0o700); err != nil {
			return err
		}
		switch {
		case info.IsDir():
			return h.Root.MkdirAll(dst, info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := h.Root.Readlink(p)
			if err != nil {
				return err
			}
			return h.Root.Symlink(target, dst)
		case info.Mode().IsRegular():
			return copyFile(h, p, dst, info)
		}
		return nil // sockets
	})
}

// copyFile copies a file; holes, as in etcd's preallocated logs, stay holes.
func copyFile(h *host.Host, from, to string, info fs.FileInfo) error {
	in, err := h.Root.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := h.Root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	err = copySparse(out, in)
	if err == nil {
		err = errors.Join(out.Truncate(info.Size()), out.Chmod(info.Mode().Perm()), out.Sync())
	}
	return errors.Join(err, out.Close())
}

func copySparse(out io.WriterAt, in io.Reader) error {
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(in, block)
		if n > 0 && string(block[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// restoreTree puts in place at to what was kept at from, static pods last. What
// only the later version has made stays.
func restoreTree(h *host.Host, from, to string) error {
	from, to = strings.TrimPrefix(from, "/"), strings.TrimPrefix(to, "/")
	put := func(p string) error {
		dst := "/" + path.Join(to, strings.TrimPrefix(p, from))
		info, err := h.Root.Lstat(p)
		if err != nil {
			return err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := h.Root.Readlink(p)
			if err != nil {
				return err
			}
			return h.Symlink(target, dst)
		case info.Mode().IsRegular():
			b, err := h.ReadFile(p)
			if err != nil {
				return err
			}
			return h.WriteFile(dst, b, info.Mode().Perm())
		}
		return nil
	}
	var files, pods []string
	err := fs.WalkDir(h.Root.FS(), from, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && p == from:
			return ignoreMissing(err)
		case err != nil || d.IsDir():
			return err
		case strings.HasPrefix("/"+p, BackupDir+node.ManifestDir):
			pods = append(pods, p)
		default:
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range append(files, pods...) {
		if err := put(p); err != nil {
			return err
		}
	}
	return nil
}
