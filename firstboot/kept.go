package firstboot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const (
	// keptDir is what a node has kept of the version before this one: the files
	// below it at their paths, and keptRecord. It is there whole or not at all.
	keptDir    = "/var/lib/kbuild/kept"
	keptRecord = keptDir + "/kept.json"
	keepingDir = "/var/lib/kbuild/.keeping" // keptDir while it is being made
)

// kept says what keptDir is.
type kept struct {
	Version string    `json:"version"` // of Kubernetes, that it was kept of
	To      string    `json:"to"`      // the version that the node moved to
	Etcd    string    `json:"etcd"`    // tag of the etcd that it moved to
	Data    string    `json:"data"`    // directory of etcd's data; empty without a member here
	Time    time.Time `json:"time"`
}

func readKept(r *Run) (kept, error) { return readState[kept](r, keptRecord) }

// keptPaths are what a move changes: in order, with what counts most last.
func keptPaths() []string {
	return []string{
		kubeletConfig, kubeletInstance, kubeletFlags,
		clusterFile, etcdJoinFile,
		"/etc/kubernetes",
	}
}

// etcdData is where the member of this node has its data; empty without one.
func etcdData(r *Run, n *config.Node) string {
	if n.Role == config.RoleWorker {
		return ""
	}
	dir := "/var/lib/etcd" // kubeadm's default, of a node that joined too
	if l := n.Cluster.Etcd.Local; l != nil && l.DataDir != "" {
		dir = l.DataDir
	}
	if !r.Host.Exists(path.Join(dir, "member")) {
		return ""
	}
	return dir
}

// keep copies what the move of n, as it is in its cluster, from version old to
// this image's will change. etcd does not run yet, so its data is copied as it
// lies: log and database, the last write included.
func keep(r *Run, n *config.Node, old string) error {
	h := r.Host
	paths := append(keptPaths(), nodeFile)
	data := etcdData(r, n)
	if data != "" {
		paths = append([]string{path.Join(data, "member")}, paths...)
	}
	if err := roomFor(h, paths); err != nil {
		return err
	}
	if err := h.RemoveAll(keepingDir); err != nil {
		return err
	}
	err := h.Do("copy what a move changes", func() error {
		if err := h.Root.MkdirAll(strings.TrimPrefix(keepingDir, "/"), 0o700); err != nil {
			return err
		}
		for _, p := range paths {
			if err := copyTree(h, p, keepingDir+p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot keep a copy of the node: %w", err)
	}
	rel := r.Baked.Release
	k := kept{Version: old, To: rel.Version, Etcd: rel.Etcd.Tag, Data: data, Time: h.Now().UTC()}
	if err := writeState(r, path.Join(keepingDir, path.Base(keptRecord)), k); err != nil {
		return err
	}
	if err := h.RemoveAll(keptDir); err != nil { // of the move before this one
		return err
	}
	return h.Rename(keepingDir, keptDir)
}

// undo puts in place what was kept of this image's version. Data of etcd stays
// as it is, with everything that was written meanwhile, where this version's
// etcd reads it.
func undo(r *Run, k kept) error {
	h := r.Host
	if k.Data != "" && !r.Baked.Release.ReadsEtcd(k.Etcd) {
		return outcome.Refuse("cannot go back to %s by itself: etcd %s has used the data, and this version's etcd does not read it; the data from before is in %s", k.Version, k.Etcd, keptDir+k.Data)
	}
	for _, p := range keptPaths() {
		if err := restoreTree(h, keptDir+p, p); err != nil {
			return fmt.Errorf("cannot undo the move to %s: %w", k.To, err)
		}
	}
	if err := restoreTree(h, keptDir+nodeFile, nodeFile); err != nil {
		return fmt.Errorf("cannot undo the move to %s: %w", k.To, err)
	}
	return dropKept(h)
}

// dropKept removes what is kept. Its name goes first: a copy that is removed in
// part must not be taken for a whole one by a move that follows.
func dropKept(h *host.Host) error {
	if err := h.RemoveAll(keepingDir); err != nil {
		return err
	}
	if h.Exists(keptDir) {
		if err := h.Rename(keptDir, keepingDir); err != nil {
			return err
		}
	}
	return h.RemoveAll(keepingDir)
}

// roomFor refuses to copy paths where they do not fit beside what is there.
func roomFor(h *host.Host, paths []string) error {
	var size int64
	for _, p := range paths {
		err := fs.WalkDir(h.Root.FS(), strings.TrimPrefix(p, "/"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ignoreMissing(err)
			}
			info, err := d.Info()
			if err == nil {
				size += info.Size()
			}
			return ignoreMissing(err)
		})
		if err != nil {
			return err
		}
	}
	const spare = 64 << 20 // for what the new version writes until it is Ready
	free, err := h.Probe.Space("/var/lib/kbuild")
	if err != nil {
		return fmt.Errorf("cannot ask how much room there is: %w", err)
	}
	if want := uint64(size) + spare; free < want {
		return outcome.Refuse("cannot move this node to another version: /var has %d MiB free, and a copy of what the move changes (certificates, configuration, etcd) takes %d MiB; make room or grow the disk", free>>20, want>>20)
	}
	return nil
}

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
		case strings.HasPrefix("/"+p, keptDir+manifestDir):
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
