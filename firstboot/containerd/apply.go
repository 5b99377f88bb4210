package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild/kbuild/firstboot/host"
)

// apply makes what is missing, under a lease, so that containerd's garbage
// collection keeps its hands off until the image records hold everything. A
// collection may still be under way that takes what was there at the first
// look and nothing held; so it looks again until nothing is missing.
func (c *client) apply(ctx context.Context, want []bakedImage) error {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	ctx, release, err := c.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return fmt.Errorf("cannot hand over the baked images: %w", err)
	}
	defer func() { release(context.WithoutCancel(ctx)) }()
	var gone error
	for range 5 {
		have, err := c.have(ctx)
		if err != nil {
			return err
		}
		t := c.compare(want, have)
		if t.empty() {
			return nil
		}
		// What was there at the look may be gone when it is built upon.
		if gone = c.make(ctx, t); gone != nil && !errdefs.IsNotFound(gone) {
			return gone
		}
	}
	return errors.Join(errors.New("cannot hand over the baked images: containerd's garbage collection takes them faster than they are handed over"), gone)
}

// make makes what is missing.
func (c *client) make(ctx context.Context, t diff) error {
	for _, l := range t.relinks {
		if err := c.host.Do("relink layer "+l.chain.String(), func() error { return c.relink(ctx, l) }); err != nil {
			return fmt.Errorf("cannot link layer %s again: %w", l.chain, err)
		}
	}
	// Lowest layers need no other; the rest come in the order of their chains.
	var lowest, higher []bakedLayer
	for _, l := range t.layers {
		if l.parent == "" {
			lowest = append(lowest, l)
		} else {
			higher = append(higher, l)
		}
	}
	err := sideBySide(c.host, lowest, func(l bakedLayer) (string, func() error) {
		return "link layer " + l.chain.String(), func() error { return c.snapshot(ctx, l, c.link) }
	})
	if err != nil {
		return err
	}
	probed := false
	for _, l := range higher {
		if err := c.host.Do("link layer "+l.chain.String(), func() error { return c.snapshot(ctx, l, c.link) }); err != nil {
			return fmt.Errorf("cannot link layer %s: %w", l.chain, err)
		}
		if probed {
			continue
		}
		// The first layer on top of another shows whether this kernel and
		// containerd can mount linked layers at all.
		probed = true
		if err := c.probe(ctx, l); err != nil {
			c.host.Log.Warn("layers cannot be used in place, so they are copied; starting takes longer and more space", slog.Any("error", err))
			return c.makeCopies(ctx, t)
		}
	}
	return c.records(ctx, t)
}

// makeCopies is make for a machine on which links do not work.
func (c *client) makeCopies(ctx context.Context, t diff) error {
	sn := c.client.SnapshotService(c.snapshotter)
	for _, l := range slices.Backward(t.layers) {
		if err := sn.Remove(ctx, l.chain.String()); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("cannot take back the link of layer %s: %w", l.chain, err)
		}
	}
	for _, l := range t.layers {
		if err := c.host.Do("copy layer "+l.chain.String(), func() error { return c.snapshot(ctx, l, c.copy) }); err != nil {
			return fmt.Errorf("cannot copy layer %s: %w", l.chain, err)
		}
	}
	return c.records(ctx, t)
}

// records writes blobs first, then the image records that name them. Each is a
// transaction that goes to the disk, so several are under way at a time.
func (c *client) records(ctx context.Context, t diff) error {
	err := sideBySide(c.host, t.blobs, func(b blobWant) (string, func() error) {
		return "write blob " + b.Digest.String(), func() error { return c.write(ctx, b) }
	})
	if err != nil {
		return err
	}
	is := c.client.ImageService()
	err = sideBySide(c.host, t.images, func(i ctrimages.Image) (string, func() error) {
		return "name image " + i.Name, func() error {
			_, err := is.Create(ctx, i)
			if errdefs.IsAlreadyExists(err) {
				_, err = is.Update(ctx, i, "target", "labels")
			}
			return err
		}
	})
	if err != nil {
		return err
	}
	for _, name := range t.stale {
		err := c.host.Do("forget image "+name, func() error { return is.Delete(ctx, name) })
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("cannot forget image %s: %w", name, err)
		}
	}
	return nil
}

// sideBySide makes the change that each item stands for, several at a time. It
// returns when all have ended, with the first error.
func sideBySide[T any](h *host.Host, items []T, change func(T) (what string, do func() error)) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, item := range items {
		what, do := change(item)
		if err := h.BeforeChange(what); err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			if err := do(); err != nil {
				return fmt.Errorf("cannot %s: %w", what, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (c *client) write(ctx context.Context, b blobWant) error {
	cs := c.client.ContentStore()
	if !b.there {
		err := content.WriteBlob(ctx, cs, "kbuild-"+b.Digest.String(), bytes.NewReader(b.data), b.Descriptor, content.WithLabels(b.labels))
		if !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
	var fields []string
	for k := range b.labels {
		fields = append(fields, "labels."+k)
	}
	_, err := cs.Update(ctx, content.Info{Digest: b.Digest, Labels: b.labels}, fields...)
	return err
}

// probe mounts a chain as a container would have it, and looks into it.
func (c *client) probe(ctx context.Context, l bakedLayer) error {
	sn := c.client.SnapshotService(c.snapshotter)
	key := "kbuild-probe-" + l.chain.String()
	// A boot that was interrupted here has left it.
	if err := sn.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	mounts, err := sn.View(ctx, key, l.chain.String())
	if err != nil {
		return err
	}
	defer func() {
		if err := sn.Remove(context.WithoutCancel(ctx), key); err != nil {
			c.host.Log.Warn("a view of a layer stays until the next look", slog.String("snapshot", key), slog.Any("error", err))
		}
	}()
	return mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		names, err := os.ReadDir(root)
		if err == nil && len(names) == 0 {
			err = errors.New("the mounted layers are empty")
		}
		return err
	})
}
