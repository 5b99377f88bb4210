package containerd

import (
	"os"
	"slices"

	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
)

// Labels that kbuild puts on what it hands over.
const (
	labelBaked = "kbuild.dev/baked" // on image records: version of Kubernetes that brought it
	labelLink  = "kbuild.dev/link"  // on snapshots: the link in containerd's directory
)

// diff is what is missing in containerd, in the order in which it is made.
type diff struct {
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

func (t diff) empty() bool {
	return len(t.layers)+len(t.relinks)+len(t.blobs)+len(t.images)+len(t.stale) == 0
}

// compare compares the store with what containerd holds.
func (c *client) compare(want []bakedImage, have inventory) diff {
	var t diff
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
