package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// Push uploads the update in dir, as `kbuild image` wrote it, to a registry as
// an OCI artifact: to is "oci://HOST/REPOSITORY:TAG", and Docker's config has
// the credentials. What the registry has already is not sent again. It returns
// the artifact's digest.
func Push(ctx context.Context, dir, to string, log progress.Log) (string, error) {
	where, ok := strings.CutPrefix(to, "oci://")
	ref, err := name.ParseReference(where)
	if !ok || err != nil {
		return "", BadSpec{fmt.Errorf("cannot push to %q: want oci://HOST/REPOSITORY:TAG", to)}
	}
	img, err := artifact(dir)
	if err != nil {
		return "", fmt.Errorf("cannot push %s: %w", dir, err)
	}
	log("pushing the update in %s to %s", dir, to)
	updates := make(chan v1.Update, 16)
	go func() {
		last := int64(0)
		for u := range updates {
			if u.Complete-last >= 100<<20 {
				last = u.Complete
				log("%d of %d MiB", u.Complete>>20, u.Total>>20)
			}
		}
	}()
	err = remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithProgress(updates))
	if err != nil {
		return "", fmt.Errorf("cannot push to %s: %w", to, err)
	}
	d, err := img.Digest()
	return d.String(), err
}

// artifact is the manifest of an update. Files that do not match what
// update.json says of them are an error.
func artifact(dir string) (v1.Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, images.UpdateFile))
	if err != nil {
		return nil, fmt.Errorf("%w; it should be the output directory of `kbuild image`", err)
	}
	u, err := images.ReadUpdate(b)
	if err != nil {
		return nil, err
	}
	want := map[string]string{images.UpdateSums: "", images.UpdateFile: "", images.UpdateSignature: ""}
	names := []string{images.UpdateSums, images.UpdateSignature, images.UpdateFile}
	for _, p := range u.Parts() {
		want[p.Name] = p.SHA256
		names = append(names, p.Name)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), images.ArtifactType)
	for _, n := range names {
		f, err := outputFile(dir, n)
		if errors.Is(err, fs.ErrNotExist) && n == images.UpdateSignature {
			continue
		}
		if err != nil {
			return nil, err
		}
		if want[n] != "" && want[n] != f.SHA256 {
			return nil, fmt.Errorf("%s is not the file that %s names: build the image again", n, images.UpdateFile)
		}
		layer := fileLayer{filepath.Join(dir, n), f}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: layerType, Annotations: map[string]string{images.ArtifactTitle: n}}); err != nil {
			return nil, err
		}
	}
	return img, nil
}

const layerType = types.MediaType("application/octet-stream")

// fileLayer is a file as a layer, byte for byte.
type fileLayer struct {
	path string
	file OutputFile
}

func (l fileLayer) Digest() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: l.file.SHA256}, nil
}
func (l fileLayer) DiffID() (v1.Hash, error)             { return l.Digest() }
func (l fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l fileLayer) Size() (int64, error)                 { return l.file.Size, nil }
func (l fileLayer) MediaType() (types.MediaType, error)  { return layerType, nil }
