package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// snapshot makes the snapshot of one layer: put fills its directory and
// returns the labels that tell of it.
func (c *client) snapshot(ctx context.Context, l bakedLayer, put func(l bakedLayer, dir string) (map[string]string, error)) error {
	sn := c.client.SnapshotService(c.snapshotter)
	key := "kbuild-" + l.chain.String()
	// What an interrupted boot left is of no use.
	if err := sn.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	mounts, err := sn.Prepare(ctx, key, l.parent)
	if err != nil {
		return err
	}
	dir, err := upper(mounts)
	if err != nil {
		return err
	}
	labels, err := put(l, dir)
	if err != nil {
		return err
	}
	err = sn.Commit(ctx, l.chain.String(), key, snapshots.WithLabels(labels))
	if errdefs.IsAlreadyExists(err) {
		return sn.Remove(ctx, key)
	}
	return err
}

// upper is the directory that a prepared snapshot's own files go to: the
// source of the bind mount of a lowest layer, else the overlay's upperdir.
func upper(mounts []mount.Mount) (string, error) {
	for _, m := range mounts {
		if m.Type == "bind" {
			return m.Source, nil
		}
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("containerd prepared mounts that have no directory of their own: %v; the snapshotter must be overlayfs", mounts)
}

// link puts a link to the baked layer in dir's place. A layer that comes twice
// in one chain is copied the second time, because overlayfs refuses the same
// directory twice.
func (c *client) link(l bakedLayer, dir string) (map[string]string, error) {
	if l.again {
		return c.copy(l, dir)
	}
	return map[string]string{labelLink: dir}, symlink(l.dir, dir)
}

func (c *client) copy(l bakedLayer, dir string) (map[string]string, error) {
	return nil, continuity.CopyDir(dir, c.host.Path(l.dir))
}

// relink repairs a link of a snapshot that is already there.
func (c *client) relink(ctx context.Context, l bakedLayer) error {
	info, err := c.client.SnapshotService(c.snapshotter).Stat(ctx, l.chain.String())
	if err != nil {
		return err
	}
	link := info.Labels[labelLink]
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		return err
	}
	return symlink(l.dir, link)
}

// symlink puts a link in the place of an empty directory, a link or nothing,
// and brings it to the disk.
func symlink(target, name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, name); err != nil {
		return err
	}
	d, err := os.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
