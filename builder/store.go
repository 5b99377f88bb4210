package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild/kbuild/images"
)

// BakedImage is a container image in the store, as manifest.json lists it.
type BakedImage struct {
	Name   string   `json:"name"`
	Digest string   `json:"digest"` // of the manifest
	Layers []string `json:"layers"` // diff IDs
	Size   int64    `json:"size"`   // unpacked bytes of its layers
}

// writeStore unpacks the images of an OCI layout into the store at dir (see
// images.StoreDir): manifests and configs as blobs, each layer once as a
// directory. Whiteouts become those of overlayfs, since the directories are used
// as overlayfs layers in place.
func writeStore(ctx context.Context, from, dir string) ([]BakedImage, error) {
	src, err := layout.ImageIndexFromPath(from)
	if err != nil {
		return nil, fmt.Errorf("cannot read images in %s: %w", from, err)
	}
	im, err := src.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("cannot read images in %s: %w", from, err)
	}
	s := store{dir: dir, layers: map[string]v1.Layer{}}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: im.MediaType}
	var baked []BakedImage
	for _, d := range im.Manifests {
		name := d.Annotations[images.RefAnnotation]
		if name == "" {
			return nil, fmt.Errorf("cannot bake image %s in %s: its entry has no annotation %s", d.Digest, from, images.RefAnnotation)
		}
		img, err := src.Image(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("cannot bake %s: %w", name, err)
		}
		b, err := s.add(name, img)
		if err != nil {
			return nil, fmt.Errorf("cannot bake %s: %w", name, err)
		}
		baked = append(baked, b)
		d.Annotations = map[string]string{images.RefAnnotation: name}
		d.Platform = nil
		index.Manifests = append(index.Manifests, d)
	}
	if err := s.unpack(ctx); err != nil {
		return nil, err
	}
	for i := range baked {
		for _, l := range baked[i].Layers {
			baked[i].Size += s.size[l]
		}
	}
	slices.SortFunc(index.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(a.Annotations[images.RefAnnotation], b.Annotations[images.RefAnnotation])
	})
	slices.SortFunc(baked, func(a, b BakedImage) int { return strings.Compare(a.Name, b.Name) })
	out, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), append(out, '\n'), 0o644); err != nil {
		return nil, err
	}
	return baked, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// store is an image store being written.
type store struct {
	dir    string
	layers map[string]v1.Layer // by diff ID
	size   map[string]int64    // unpacked bytes by diff ID, once unpack is done
}

// add writes the image's manifest and config, and notes its layers.
func (s *store) add(name string, img v1.Image) (BakedImage, error) {
	b := BakedImage{Name: name}
	digest, err := img.Digest()
	if err != nil {
		return b, err
	}
	b.Digest = digest.String()
	manifest, err := img.RawManifest()
	if err != nil {
		return b, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return b, err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return b, err
	}
	for h, data := range map[v1.Hash][]byte{digest: manifest, configName: config} {
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != h.Hex {
			return b, fmt.Errorf("blob %s is damaged: it has digest sha256:%x", h, sum)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "blobs", "sha256", h.Hex), data, 0o644); err != nil {
			return b, err
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return b, err
	}
	parsed, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return b, err
	}
	if len(parsed.RootFS.DiffIDs) != len(layers) {
		return b, fmt.Errorf("its config names %d layers, and its manifest %d", len(parsed.RootFS.DiffIDs), len(layers))
	}
	for i, l := range layers {
		id := parsed.RootFS.DiffIDs[i]
		b.Layers = append(b.Layers, id.String())
		s.layers[id.String()] = l
	}
	return b, nil
}

// unpack writes every noted layer once, in parallel, and verifies its diff ID.
func (s *store) unpack(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	sizes := make(chan struct {
		id string
		n  int64
	}, len(s.layers))
	for id, l := range s.layers {
		g.Go(func() error {
			dir := filepath.Join(s.dir, images.LayersDir, strings.TrimPrefix(id, "sha256:"))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			r, err := l.Uncompressed()
			if err != nil {
				return fmt.Errorf("cannot read layer %s: %w", id, err)
			}
			defer r.Close()
			sum := sha256.New()
			all := io.TeeReader(r, sum)
			n, err := archive.Apply(ctx, dir, all, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
			if err == nil {
				_, err = io.Copy(io.Discard, all) // what follows the archive's end
			}
			if err != nil {
				return fmt.Errorf("cannot unpack layer %s: %w", id, err)
			}
			if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != id {
				return fmt.Errorf("layer %s is damaged: it has diff ID %s", id, got)
			}
			sizes <- struct {
				id string
				n  int64
			}{id, n}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	close(sizes)
	s.size = map[string]int64{}
	for v := range sizes {
		s.size[v.id] = v.n
	}
	return nil
}
