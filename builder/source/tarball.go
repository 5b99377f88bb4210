package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild/kbuild/images"
)

// saved is an entry of manifest.json in what "docker save" writes.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// tarIndex reads which images a tarball holds, without their layers: from
// index.json (OCI) or else from manifest.json (docker save).
func tarIndex(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var index v1.IndexManifest
	var manifest []saved
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w: want a tarball of docker save or an OCI layout, not compressed", file, err)
		}
		var into any
		switch path.Clean(h.Name) {
		case "index.json":
			into = &index
		case "manifest.json":
			into = &manifest
		default:
			continue
		}
		if err := json.NewDecoder(io.LimitReader(tr, 16<<20)).Decode(into); err != nil {
			return nil, fmt.Errorf("cannot read %s in %s: %w", h.Name, file, err)
		}
	}
	// An OCI layout counts if it has names; see unpackTarball.
	var refs []string
	for _, d := range index.Manifests {
		refs = append(refs, refOf(d))
	}
	for _, m := range manifest {
		refs = append(refs, m.RepoTags...)
	}
	refs = slices.DeleteFunc(refs, func(r string) bool { return r == "" })
	if len(refs) == 0 {
		return nil, fmt.Errorf("cannot use %s: it names no image: save it by name, as in docker save -o FILE NAME:TAG", file)
	}
	return FullNames(refs)
}

// unpackTarball turns a tarball into an OCI layout in dir.
func unpackTarball(ctx context.Context, file, dir string) error {
	raw := filepath.Join(dir, ".raw")
	if err := os.Mkdir(raw, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(raw)
	if err := untar(ctx, file, raw); err != nil {
		return fmt.Errorf("cannot unpack %s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	add := func(d v1.Descriptor, full string) {
		d.Annotations = map[string]string{images.RefAnnotation: full}
		index.Manifests = append(index.Manifests, d)
	}
	oci, err := layoutImages(raw)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot use %s: %w", file, err)
	}
	for ref, l := range oci {
		if err := copyImage(ctx, dir, raw, l.desc); err != nil {
			return fmt.Errorf("cannot use %s: %w", file, err)
		}
		add(l.desc, ref)
	}
	// What docker save writes has both lists; without names in the first one,
	// and in what old ones write, the second one counts.
	var docker []saved
	if len(oci) == 0 {
		if err := readJSON(raw, "manifest.json", &docker); err != nil {
			return fmt.Errorf("cannot use %s: %w", file, err)
		}
	}
	for _, s := range docker {
		d, err := putSaved(dir, raw, s)
		if err != nil {
			return fmt.Errorf("cannot use %s: %w", file, err)
		}
		tags, err := FullNames(s.RepoTags)
		if err != nil {
			return fmt.Errorf("cannot use %s: %w", file, err)
		}
		for _, tag := range tags {
			add(d, tag)
		}
	}
	return writeIndex(dir, index)
}

// putSaved adds an image of docker save to the layout dir, with a manifest of
// its own; its layers are checked against the diff IDs of its config.
func putSaved(dir, raw string, s saved) (v1.Descriptor, error) {
	root, err := os.OpenRoot(raw)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer root.Close()
	text, err := root.ReadFile(s.Config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	hash, size, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, err
	}
	// The config is named by its digest: "sha256:HEX", "HEX.json", "blobs/sha256/HEX".
	if id := regexp.MustCompile(`[0-9a-f]{64}`).FindString(s.Config); id != "" && id != hash.Hex {
		return v1.Descriptor{}, fmt.Errorf("config %s is damaged: its content has digest %s", s.Config, hash.Hex)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("cannot read the config %s: %w", s.Config, err)
	}
	if len(config.RootFS.DiffIDs) != len(s.Layers) {
		return v1.Descriptor{}, fmt.Errorf("the config %s names %d layers, manifest.json %d", s.Config, len(config.RootFS.DiffIDs), len(s.Layers))
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, name := range s.Layers {
		if _, err := root.Stat(name); err != nil { // and it is not outside
			return v1.Descriptor{}, err
		}
		real, err := filepath.EvalSymlinks(filepath.Join(raw, name))
		if err != nil {
			return v1.Descriptor{}, err
		}
		d, err := linkBlob(dir, real)
		if err != nil {
			return v1.Descriptor{}, err
		}
		id := d.Digest
		if id != config.RootFS.DiffIDs[i] { // crane and others save layers compressed
			if inner, err := gunzipped(real); err == nil {
				id, d.MediaType = inner, types.OCILayer
			}
		}
		if id != config.RootFS.DiffIDs[i] {
			return v1.Descriptor{}, fmt.Errorf("layer %s is damaged: its content has digest %s instead of %s", name, id, config.RootFS.DiffIDs[i])
		}
		m.Layers = append(m.Layers, d)
	}
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: hash, Size: size}
	if err := writeFile(blobPath(dir, hash), text, 0o644); err != nil {
		return v1.Descriptor{}, err
	}
	d, err := putJSON(dir, m, types.OCIManifestSchema1)
	d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture}
	return d, err
}

// gunzipped is the digest of what a gzip file holds.
func gunzipped(file string) (v1.Hash, error) {
	f, err := os.Open(file)
	if err != nil {
		return v1.Hash{}, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return v1.Hash{}, err
	}
	hash, _, err := v1.SHA256(z)
	return hash, err
}

// untar unpacks files, directories and links; nothing can leave dir.
func untar(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if name == "." {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			var out *os.File
			if out, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
				_, err = io.Copy(out, tr)
				err = errors.Join(err, out.Close())
			}
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeLink:
			err = root.Link(path.Clean(h.Linkname), name)
		}
		if err != nil {
			return err
		}
	}
}

func readJSON(dir, name string, v any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	return nil
}
