package containerd

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// bakedImage is one image of the store, ready to be handed over.
type bakedImage struct {
	refs     []string // names, the full one first
	manifest blob
	config   blob
	layers   []bakedLayer // lowest first
}

type blob struct {
	ocispec.Descriptor
	data []byte
}

// bakedLayer is an unpacked layer and its place in a chain.
type bakedLayer struct {
	dir    string        // where it lies on the node
	chain  digest.Digest // chain ID of it and all below it
	parent string        // chain ID of all below it; empty for the lowest
	again  bool          // the same layer is already below it
}

func (b bakedImage) chain() string {
	if len(b.layers) == 0 {
		return ""
	}
	return b.layers[len(b.layers)-1].chain.String()
}

// readStore reads the image store at dir and verifies what it reads; layers
// are not looked into, because the root file system is verified by the kernel.
func readStore(h *host.Host, dir string) ([]bakedImage, error) {
	b, err := h.ReadFile(path.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the image store: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("cannot read the image store: %s/%s: %w", dir, ocispec.ImageIndexFile, err)
	}
	var list []bakedImage
	at := map[digest.Digest]int{}
	for _, d := range index.Manifests {
		ref := d.Annotations[images.RefAnnotation]
		if ref == "" {
			return nil, fmt.Errorf("cannot read the image store: %s/%s: manifest %s has no annotation %s", dir, ocispec.ImageIndexFile, d.Digest, images.RefAnnotation)
		}
		if i, ok := at[d.Digest]; ok {
			list[i].refs = append(list[i].refs, ref)
			continue
		}
		img, err := readImage(h, dir, d)
		if err != nil {
			return nil, fmt.Errorf("cannot read image %s of the image store: %w", ref, err)
		}
		img.refs = []string{ref}
		at[d.Digest] = len(list)
		list = append(list, img)
	}
	return list, nil
}

func readImage(h *host.Host, dir string, d ocispec.Descriptor) (img bakedImage, err error) {
	// The annotations name the image; the descriptor must not carry them on.
	d.Annotations = nil
	if img.manifest, err = readBlob(h, dir, d); err != nil {
		return img, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(img.manifest.data, &m); err != nil {
		return img, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if img.config, err = readBlob(h, dir, m.Config); err != nil {
		return img, err
	}
	var c ocispec.Image
	if err := json.Unmarshal(img.config.data, &c); err != nil {
		return img, fmt.Errorf("config %s: %w", m.Config.Digest, err)
	}
	seen := map[digest.Digest]bool{}
	for i, id := range c.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return img, fmt.Errorf("config %s: diff ID %q: %w", m.Config.Digest, id, err)
		}
		l := bakedLayer{
			dir:   path.Join(dir, images.LayersDir, id.Encoded()),
			chain: identity.ChainID(c.RootFS.DiffIDs[:i+1]),
			again: seen[id],
		}
		if i > 0 {
			l.parent = img.layers[i-1].chain.String()
		}
		seen[id] = true
		if st, err := h.Root.Stat(strings.TrimPrefix(l.dir, "/")); err != nil || !st.IsDir() {
			return img, fmt.Errorf("layer %s is missing: %s is no directory", id, l.dir)
		}
		img.layers = append(img.layers, l)
	}
	return img, nil
}

func readBlob(h *host.Host, dir string, d ocispec.Descriptor) (blob, error) {
	if err := d.Digest.Validate(); err != nil {
		return blob{}, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	name := path.Join(dir, ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded())
	b, err := h.ReadFile(name)
	if err != nil {
		return blob{}, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest || int64(len(b)) != d.Size {
		return blob{}, fmt.Errorf("%s is corrupt: it has %d bytes with digest %s, wanted %d with %s", name, len(b), got, d.Size, d.Digest)
	}
	return blob{d, b}, nil
}
