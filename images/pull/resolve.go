package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// target is an image on its way into the layout.
type target struct {
	Image
	desc  v1.Descriptor // of the platform's manifest
	raw   []byte        // that manifest
	blobs []Blob        // config and layers, each once
	at    []name.Repository
}

// Blob is a config or layer.
type Blob struct {
	Digest v1.Hash
	Size   int64
}

// resolve tries the sources of an image in order.
func (p *puller) resolve(ctx context.Context, full string) (*target, error) {
	refs, err := sources(full, p.Mirrors)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, ref := range refs {
		t, err := p.resolveAt(ctx, full, ref)
		if err == nil {
			// Blobs come from where the manifest came from; other mirrors
			// fill gaps.
			t.at = nil
			for _, r := range refs[i:] {
				t.at = append(t.at, r.Context())
			}
			return t, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("from %s: %w", ref.Name(), err))
	}
	return nil, errors.Join(errs...)
}

func (p *puller) resolveAt(ctx context.Context, full string, ref name.Reference) (*target, error) {
	id := ref.Identifier()
	if digest, ok := p.Lock[full]; ok {
		id = digest
	}
	desc, raw, err := p.manifest(ctx, full, ref, id)
	if err != nil {
		return nil, err
	}
	t := &target{Image: Image{Digest: desc.Digest.String(), From: ref.Name()}}
	indexed := desc.MediaType.IsIndex()
	if indexed {
		child, err := choose(raw, p.platform)
		if err != nil {
			return nil, err
		}
		if desc, raw, err = p.manifest(ctx, full, ref, child.String()); err != nil {
			return nil, err
		}
	}
	if !desc.MediaType.IsImage() {
		return nil, fmt.Errorf("%s is of type %q: only OCI and Docker schema 2 images are supported", desc.Digest, desc.MediaType)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest %s: %w", desc.Digest, err)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 || d.Size < 0 {
			return nil, fmt.Errorf("manifest %s names a blob %q of %d bytes: only sha256 is supported", desc.Digest, d.Digest, d.Size)
		}
		if b := (Blob{d.Digest, d.Size}); !slices.Contains(t.blobs, b) {
			t.blobs = append(t.blobs, b)
		}
	}
	t.desc, t.raw = desc, raw
	t.at = []name.Repository{ref.Context()}
	if !indexed {
		if err := p.checkPlatform(ctx, t, t.blobs[0]); err != nil {
			return nil, err
		}
	}
	t.describe(full, p.platform)
	return t, nil
}

func (p *puller) manifest(ctx context.Context, full string, ref name.Reference, id string) (v1.Descriptor, []byte, error) {
	var desc v1.Descriptor
	var raw []byte
	err := p.again(ctx, full, func() (_ bool, err error) {
		desc, raw, err = p.regs.manifest(ctx, ref.Context(), id)
		return false, err
	})
	if err != nil {
		return desc, nil, err
	}
	// The type is also in the content, where registries cannot get it wrong.
	var t struct {
		MediaType types.MediaType `json:"mediaType"`
	}
	if json.Unmarshal(raw, &t) == nil && t.MediaType != "" {
		desc.MediaType = t.MediaType
	}
	return desc, raw, nil
}

// choose finds the platform's image in an index.
func choose(raw []byte, want v1.Platform) (v1.Hash, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("cannot read the image index: %w", err)
	}
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil {
			continue
		}
		if d.Platform.Satisfies(want) && d.MediaType.IsImage() {
			return d.Digest, nil
		}
		have = append(have, d.Platform.String())
	}
	return v1.Hash{}, fmt.Errorf("there is no image for %s, only for %s", want.String(), strings.Join(have, ", "))
}

// checkPlatform refuses an image without index that is for another machine.
// The config is fetched for it, as all blobs are.
func (p *puller) checkPlatform(ctx context.Context, t *target, config Blob) error {
	there, err := p.store.has(ctx, config.Digest, config.Size)
	if err != nil {
		return err
	}
	if !there {
		if err := p.transfer(ctx, t, config); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(p.store.blob(config.Digest))
	if err != nil {
		return fmt.Errorf("cannot read the image's config: %w", err)
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("cannot read the image's config %s: %w", config.Digest, err)
	}
	if c.OS != p.platform.OS || c.Architecture != p.platform.Architecture {
		return fmt.Errorf("the image is for %s/%s, not for %s", c.OS, c.Architecture, p.platform.String())
	}
	return nil
}
