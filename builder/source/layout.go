package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/images/pull"
)

// image is a container image to be assembled.
type image struct {
	ref    string
	layers []layer
	config v1.Config
}

// assemble writes images and those that more names from other layouts into
// one OCI layout in the store, and returns its directory. Layer blobs are not
// compressed: the builder unpacks them at once.
func (s store) assemble(ctx context.Context, imgs []image, more []located, arch string, epoch time.Time, log progress.Log) (string, error) {
	archives := map[string][]string{} // of each image's layers
	keys := []any{arch, epoch.Unix()}
	for _, img := range imgs {
		for _, l := range img.layers {
			path, err := s.layerFile(ctx, l, epoch, log)
			if err != nil {
				return "", err
			}
			archives[img.ref] = append(archives[img.ref], path)
		}
		var ids []string
		for _, p := range archives[img.ref] {
			ids = append(ids, filepath.Base(filepath.Dir(p)))
		}
		keys = append(keys, img.ref, ids, img.config)
	}
	for i, m := range more {
		d, err := choose(m.dir, m.desc, arch)
		if err != nil {
			return "", fmt.Errorf("cannot use the image %s: %w", refOf(m.desc), err)
		}
		more[i].desc = d
		keys = append(keys, d)
	}
	return s.entry(ctx, "images", key(keys...), log, func(ctx context.Context, dir string) error {
		if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
			return err
		}
		index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		for _, img := range imgs {
			d, err := putImage(dir, img, archives[img.ref], arch, epoch)
			if err != nil {
				return fmt.Errorf("cannot assemble the image %s: %w", img.ref, err)
			}
			index.Manifests = append(index.Manifests, d)
		}
		for _, m := range more {
			if err := copyImage(ctx, dir, m.dir, m.desc); err != nil {
				return fmt.Errorf("cannot copy the image %s: %w", m.desc.Annotations[images.RefAnnotation], err)
			}
			index.Manifests = append(index.Manifests, m.desc)
		}
		return writeIndex(dir, index)
	})
}

// putImage adds one image to the layout dir.
func putImage(dir string, img image, archives []string, arch string, epoch time.Time) (v1.Descriptor, error) {
	config := v1.ConfigFile{
		Created: v1.Time{Time: epoch.UTC().Truncate(time.Second)}, OS: "linux", Architecture: arch,
		RootFS: v1.RootFS{Type: "layers"}, Config: img.config,
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, path := range archives {
		d, err := linkBlob(dir, path)
		if err != nil {
			return v1.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		config.History = append(config.History, v1.History{Created: config.Created, CreatedBy: "kbuild: " + img.layers[i].name})
	}
	var err error
	if manifest.Config, err = putJSON(dir, config, types.OCIConfigJSON); err != nil {
		return v1.Descriptor{}, err
	}
	d, err := putJSON(dir, manifest, types.OCIManifestSchema1)
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	d.Annotations = map[string]string{images.RefAnnotation: img.ref}
	return d, err
}

func putJSON(dir string, v any, media types.MediaType) (v1.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	hash, size, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: media, Size: size, Digest: hash}, writeFile(blobPath(dir, hash), b, 0o644)
}

// linkBlob makes a file a blob of the layout: a hard link where that can be,
// else a copy.
func linkBlob(dir, path string) (v1.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	hash, size, err := v1.SHA256(f)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: size, Digest: hash}
	blob := blobPath(dir, hash)
	if err := os.Link(path, blob); err == nil || errors.Is(err, fs.ErrExist) {
		return d, nil
	}
	return d, copyFile(path, blob, 0o644)
}

// located is an image in another layout: its directory and its entry there.
type located struct {
	dir  string
	desc v1.Descriptor
}

// layoutImages finds the images of the layout dir by their full names. It
// fails with fs.ErrNotExist if there is no layout.
func layoutImages(dir string) (map[string]located, error) {
	var index v1.IndexManifest
	if err := readJSON(dir, "index.json", &index); err != nil {
		return nil, fmt.Errorf("cannot read the image layout %s: %w", dir, err)
	}
	found := map[string]located{}
	for _, d := range index.Manifests {
		if ref := refOf(d); ref != "" {
			d.Annotations = map[string]string{images.RefAnnotation: ref}
			found[ref] = located{dir, d}
		}
	}
	return found, nil
}

// refOf is the full name in an index entry: containerd's annotation, or OCI's
// where that is more than a tag. It is empty where there is none.
func refOf(d v1.Descriptor) string {
	ref := d.Annotations[images.RefAnnotation]
	if ref == "" {
		ref = d.Annotations["org.opencontainers.image.ref.name"]
		if !strings.ContainsAny(ref, "/:") {
			return ""
		}
	}
	full, err := pull.FullName(ref)
	if err != nil {
		return ""
	}
	return full
}

// choose is the image for arch that d stands for: d itself, or one that its
// index names. The index entry that it returns keeps d's annotations.
func choose(dir string, d v1.Descriptor, arch string) (v1.Descriptor, error) {
	var m struct {
		Manifests []v1.Descriptor
		Config    v1.Descriptor
	}
	read := func(d v1.Descriptor, v any) error {
		if err := checkBlob(dir, d); err != nil {
			return err
		}
		b, err := os.ReadFile(blobPath(dir, d.Digest))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, v); err != nil {
			return fmt.Errorf("cannot read blob %s: %w", d.Digest, err)
		}
		return nil
	}
	if err := read(d, &m); err != nil {
		return d, err
	}
	if d.MediaType.IsIndex() {
		for _, c := range m.Manifests {
			if p := c.Platform; p != nil && p.OS == "linux" && p.Architecture == arch {
				c.Annotations = d.Annotations
				return c, nil
			}
		}
		return d, fmt.Errorf("it has no image for linux/%s", arch)
	}
	var config v1.ConfigFile
	if err := read(m.Config, &config); err != nil {
		return d, err
	}
	if config.OS != "linux" || config.Architecture != arch {
		return d, fmt.Errorf("it is for %s/%s instead of linux/%s", config.OS, config.Architecture, arch)
	}
	return d, nil
}

// walkImage visits an image, or an index of images, and all its blobs, each
// before what it names is read in dir.
func walkImage(dir string, d v1.Descriptor, visit func(v1.Descriptor) error) error {
	if err := visit(d); err != nil {
		return err
	}
	if !d.MediaType.IsIndex() && !d.MediaType.IsImage() {
		return nil
	}
	var next struct {
		Manifests []v1.Descriptor `json:"manifests"`
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
	}
	b, err := os.ReadFile(blobPath(dir, d.Digest))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &next); err != nil {
		return fmt.Errorf("cannot read the manifest %s: %w", d.Digest, err)
	}
	if next.Config != nil {
		next.Layers = append(next.Layers, *next.Config)
	}
	for _, d := range append(next.Manifests, next.Layers...) {
		if err := walkImage(dir, d, visit); err != nil {
			return err
		}
	}
	return nil
}

// copyImage copies an image, or an index of images, with all its blobs.
func copyImage(ctx context.Context, to, from string, d v1.Descriptor) error {
	return walkImage(to, d, func(d v1.Descriptor) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		blob := blobPath(to, d.Digest)
		if _, err := os.Stat(blob); err == nil {
			return nil
		}
		return copyVerified(blobPath(from, d.Digest), blob, d)
	})
}

// checkImage checks that all blobs of an image, or of an index of images, are
// there and correct.
func checkImage(dir string, d v1.Descriptor) error {
	return walkImage(dir, d, func(d v1.Descriptor) error { return checkBlob(dir, d) })
}

// checkBlob checks that the blob of d in the layout dir is complete.
func checkBlob(dir string, d v1.Descriptor) error {
	f, err := os.Open(blobPath(dir, d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	return verifyBlob(f, d)
}

// verifyBlob checks that a blob is the one that d describes.
func verifyBlob(f *os.File, d v1.Descriptor) error {
	hash, size, err := v1.SHA256(f)
	if err != nil {
		return err
	}
	if hash != d.Digest || d.Size != 0 && size != d.Size {
		return fmt.Errorf("blob %s is damaged: it has digest %s and %d bytes instead of %d", f.Name(), hash, size, d.Size)
	}
	return nil
}

// copyVerified copies a blob whose content must have d's digest.
func copyVerified(from, to string, d v1.Descriptor) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := verifyBlob(f, d); err != nil {
		return err
	}
	return copyFile(from, to, 0o644)
}

func writeIndex(dir string, index v1.IndexManifest) error {
	slices.SortFunc(index.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(refOf(a), refOf(b)) })
	b, err := json.MarshalIndent(index, "", " ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "index.json"), b, 0o644)
}

func blobPath(dir string, h v1.Hash) string {
	return filepath.Join(dir, "blobs", h.Algorithm, h.Hex)
}

// copyFile copies a whole file or nothing.
func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(mode), out.Close()); err != nil {
		return fmt.Errorf("cannot copy %s: %w", from, err)
	}
	return os.Rename(out.Name(), to)
}
