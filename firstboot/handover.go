package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels that kbuild puts on what it hands over.
const (
	labelBaked = "kbuild.dev/baked" // on image records: version of Kubernetes that brought it
	labelLink  = "kbuild.dev/link"  // on snapshots: the link in containerd's directory
)

// crt is a connection to containerd, in the kubelet's namespace.
type crt struct {
	handover
	client *containerd.Client
	conn   *grpc.ClientConn
}

// dial connects to containerd; while its socket is not there, that is a Retry.
func (o handover) dial(ctx context.Context) (*crt, error) {
	conn, err := grpc.NewClient("unix://"+o.host.Path(o.socket), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("cannot connect to containerd: %w", err)
	}
	if !o.host.Exists(o.socket) {
		conn.Close()
		return nil, Retry{After: time.Second, Why: "containerd's socket " + o.socket + " is not there yet; containerd.service makes it",
			Wake: func(ctx context.Context) { o.host.WaitFile(ctx, o.socket) }}
	}
	client, err := containerd.NewWithConn(conn, containerd.WithDefaultNamespace("k8s.io"))
	if err == nil {
		_, err = client.Version(namespaces.WithNamespace(ctx, "k8s.io"))
	}
	if err != nil {
		conn.Close()
		if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) {
			return nil, Retry{After: 200 * time.Millisecond, Why: "containerd does not answer: " + err.Error()}
		}
		return nil, fmt.Errorf("cannot connect to containerd at %s: %w", o.socket, err)
	}
	return &crt{o, client, conn}, nil
}

func (c *crt) Close() error { return c.conn.Close() }

// having is what containerd holds.
type having struct {
	images    map[string]ctrimages.Image
	content   map[digest.Digest]map[string]string // labels by digest
	snapshots map[string]snapshots.Info
}

func (c *crt) have(ctx context.Context) (having, error) {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	h := having{map[string]ctrimages.Image{}, map[digest.Digest]map[string]string{}, map[string]snapshots.Info{}}
	list, err := c.client.ImageService().List(ctx)
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's images: %w", err)
	}
	for _, i := range list {
		h.images[i.Name] = i
	}
	err = c.client.ContentStore().Walk(ctx, func(i content.Info) error { h.content[i.Digest] = i.Labels; return nil })
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's content: %w", err)
	}
	err = c.client.SnapshotService(c.snapshotter).Walk(ctx, func(_ context.Context, i snapshots.Info) error { h.snapshots[i.Name] = i; return nil })
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's snapshots of %s: %w", c.snapshotter, err)
	}
	return h, nil
}

// todo is what is missing in containerd, in the order in which it is made.
type todo struct {
	layers  []bakedLayer      // to be linked
	relinks []bakedLayer      // there, but the link is not what it should be
	blobs   []blobWant        // to be written or labelled
	images  []ctrimages.Image // to be created or updated
	stale   []string          // names to be removed
}

type blobWant struct {
	blob
	labels map[string]string
	there  bool
}

func (t todo) empty() bool {
	return len(t.layers)+len(t.relinks)+len(t.blobs)+len(t.images)+len(t.stale) == 0
}

// missing compares the store with what containerd holds.
func (c *crt) missing(want []bakedImage, have having) todo {
	var t todo
	named := map[string]bool{}
	chains := map[digest.Digest]bool{}
	for _, img := range want {
		for _, l := range img.layers {
			if chains[l.chain] {
				continue
			}
			chains[l.chain] = true
			info, ok := have.snapshots[l.chain.String()]
			link := info.Labels[labelLink]
			switch {
			case !ok:
				t.layers = append(t.layers, l)
			case link != "":
				if to, err := os.Readlink(link); err != nil || to != l.dir {
					t.relinks = append(t.relinks, l)
				}
			}
		}
		cl := map[string]string{"containerd.io/gc.ref.snapshot." + c.snapshotter: img.chain()}
		if img.chain() == "" {
			cl = nil
		}
		ml := map[string]string{"containerd.io/gc.ref.content.config": img.config.Digest.String()}
		for _, b := range []blobWant{{blob: img.config, labels: cl}, {blob: img.manifest, labels: ml}} {
			labels, there := have.content[b.Digest]
			if b.there = there; !there || !contains(labels, b.labels) {
				t.blobs = append(t.blobs, b)
			}
		}
		labels := map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned", labelBaked: c.release.Version}
		// The CRI also keeps a record under the image's ID, which is the digest of its config.
		for _, name := range append(slices.Clone(img.refs), img.config.Digest.String()) {
			named[name] = true
			old, ok := have.images[name]
			if !ok || old.Target.Digest != img.manifest.Digest || !contains(old.Labels, labels) {
				t.images = append(t.images, ctrimages.Image{Name: name, Target: img.manifest.Descriptor, Labels: labels})
			}
		}
	}
	for name, i := range have.images {
		if i.Labels[labelBaked] != "" && !named[name] {
			t.stale = append(t.stale, name)
		}
	}
	slices.Sort(t.stale)
	return t
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// apply makes what is missing, under a lease, so that containerd's garbage
// collection keeps its hands off until the image records hold everything. A
// collection may still be under way that takes what was there at the first
// look and nothing held; so it looks again until nothing is missing.
func (c *crt) apply(ctx context.Context, want []bakedImage) error {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	ctx, release, err := c.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return fmt.Errorf("cannot hand over the baked images: %w", err)
	}
	defer func() { release(context.WithoutCancel(ctx)) }()
	for range 5 {
		have, err := c.have(ctx)
		if err != nil {
			return err
		}
		t := c.missing(want, have)
		if t.empty() {
			return nil
		}
		if err := c.make(ctx, t); err != nil {
			return err
		}
	}
	return errors.New("cannot hand over the baked images: containerd's garbage collection takes them faster than they are handed over")
}

// make makes what is missing.
func (c *crt) make(ctx context.Context, t todo) error {
	for _, l := range t.relinks {
		if err := c.host.Do("relink layer "+l.chain.String(), func() error { return c.relink(ctx, l) }); err != nil {
			return fmt.Errorf("cannot link layer %s again: %w", l.chain, err)
		}
	}
	probed := false
	for _, l := range t.layers {
		if err := c.host.Do("link layer "+l.chain.String(), func() error { return c.snapshot(ctx, l, c.link) }); err != nil {
			return fmt.Errorf("cannot hand over layer %s: %w", l.chain, err)
		}
		if probed || l.parent == "" {
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
func (c *crt) makeCopies(ctx context.Context, t todo) error {
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

// records writes blobs first, then the image records that name them.
func (c *crt) records(ctx context.Context, t todo) error {
	for _, b := range t.blobs {
		if err := c.host.Do("write blob "+b.Digest.String(), func() error { return c.write(ctx, b) }); err != nil {
			return fmt.Errorf("cannot hand over blob %s: %w", b.Digest, err)
		}
	}
	is := c.client.ImageService()
	for _, i := range t.images {
		err := c.host.Do("name image "+i.Name, func() error {
			_, err := is.Create(ctx, i)
			if errdefs.IsAlreadyExists(err) {
				_, err = is.Update(ctx, i, "target", "labels")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("cannot name image %s: %w", i.Name, err)
		}
	}
	for _, name := range t.stale {
		err := c.host.Do("forget image "+name, func() error { return is.Delete(ctx, name) })
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("cannot forget image %s: %w", name, err)
		}
	}
	return nil
}

func (c *crt) write(ctx context.Context, b blobWant) error {
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

// snapshot makes the snapshot of one layer: put fills its directory and
// returns the labels that tell of it.
func (c *crt) snapshot(ctx context.Context, l bakedLayer, put func(l bakedLayer, dir string) (map[string]string, error)) error {
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
func (c *crt) link(l bakedLayer, dir string) (map[string]string, error) {
	if l.again {
		return c.copy(l, dir)
	}
	return map[string]string{labelLink: dir}, symlink(l.dir, dir)
}

func (c *crt) copy(l bakedLayer, dir string) (map[string]string, error) {
	return nil, continuity.CopyDir(dir, c.host.Path(l.dir))
}

// relink repairs a link of a snapshot that is already there.
func (c *crt) relink(ctx context.Context, l bakedLayer) error {
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

// probe mounts a chain as a container would have it, and looks into it.
func (c *crt) probe(ctx context.Context, l bakedLayer) error {
	sn := c.client.SnapshotService(c.snapshotter)
	key := "kbuild-probe-" + l.chain.String()
	mounts, err := sn.View(ctx, key, l.chain.String())
	if err != nil {
		return err
	}
	defer sn.Remove(context.WithoutCancel(ctx), key)
	return mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		names, err := os.ReadDir(root)
		if err == nil && len(names) == 0 {
			err = errors.New("the mounted layers are empty")
		}
		return err
	})
}

// seen asks the CRI, as the kubelet will, and returns a Retry until it knows
// every image.
func (c *crt) seen(ctx context.Context, want []bakedImage) error {
	resp, err := cri.NewImageServiceClient(c.conn).ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("cannot list the images that containerd shows to the kubelet: %w", err)
	}
	known := map[string]bool{}
	for _, i := range resp.Images {
		for _, t := range i.RepoTags {
			known[t] = true
		}
	}
	for _, img := range want {
		for _, ref := range img.refs {
			if !known[ref] {
				return Retry{After: 20 * time.Millisecond, Why: "containerd does not show image " + ref + " to the kubelet yet"}
			}
		}
	}
	return nil
}
