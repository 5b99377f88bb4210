package builder

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kbuild/kbuild/images"
)

// layer makes a layer of files by name; an empty content with a name that
// begins ".wh." is a whiteout.
func layer(t *testing.T, files map[string]string, o ...tarball.LayerOption) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, o...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ociLayout writes a layout of images, each a list of layers.
func ociLayout(t *testing.T, imgs map[string][]v1.Layer) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for name, layers := range imgs {
		img, err := mutate.AppendLayers(empty.Image, layers...)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{images.RefAnnotation: name})); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: whiteouts are devices")
	}
}

func TestStoreKeepsALayerOnceAndTurnsWhiteouts(t *testing.T) {
	needRoot(t)
	shared := layer(t, map[string]string{"bin/kube": "the binary"})
	upper := layer(t, map[string]string{"bin/.wh.kube": "", "etc/name": "b"})
	from := ociLayout(t, map[string][]v1.Layer{
		"registry.example/a:1": {shared},
		"registry.example/b:1": {shared, upper},
	})
	dir := filepath.Join(t.TempDir(), "store")
	baked, err := writeStore(t.Context(), from, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(baked) != 2 || baked[0].Name != "registry.example/a:1" || len(baked[1].Layers) != 2 {
		t.Fatalf("baked %+v", baked)
	}
	if baked[0].Layers[0] != baked[1].Layers[0] {
		t.Error("the shared layer has two diff IDs")
	}
	entries, err := os.ReadDir(filepath.Join(dir, images.LayersDir))
	if err != nil || len(entries) != 2 {
		t.Fatalf("layers %v, %v: want 2", entries, err)
	}
	hex := strings.TrimPrefix(baked[1].Layers[1], "sha256:")
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, images.LayersDir, hex, "bin/kube"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout is mode %o device %d, want overlayfs's character device 0", st.Mode, st.Rdev)
	}
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	im, err := ix.IndexManifest()
	if err != nil || len(im.Manifests) != 2 {
		t.Fatalf("index %+v, %v", im, err)
	}
	img, err := ix.Image(im.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.RawConfigFile(); err != nil {
		t.Errorf("the store's config blob is not readable: %v", err)
	}
}

func TestStoreRefusesAnImageWithoutName(t *testing.T) {
	from := ociLayout(t, map[string][]v1.Layer{"": {layer(t, map[string]string{"f": "x"})}})
	if _, err := writeStore(t.Context(), from, t.TempDir()); err == nil || !strings.Contains(err.Error(), images.RefAnnotation) {
		t.Errorf("error %v, want one that names the annotation", err)
	}
}

func TestStoreRefusesACorruptLayer(t *testing.T) {
	needRoot(t)
	for _, c := range []compression.Compression{compression.GZip, compression.None} {
		from := ociLayout(t, map[string][]v1.Layer{"registry.example/a:1": {layer(t, map[string]string{"f": strings.Repeat("x", 4096)}, tarball.WithCompression(c))}})
		blobs, err := filepath.Glob(filepath.Join(from, "blobs/sha256/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blobs {
			data, err := os.ReadFile(b)
			if err != nil {
				t.Fatal(err)
			}
			if data[0] != '{' { // the layer: manifest and config are JSON
				data[len(data)/2] ^= 1
				if err := os.WriteFile(b, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := writeStore(t.Context(), from, t.TempDir()); err == nil {
			t.Errorf("a layer with a flipped bit was baked (%s)", c)
		}
	}
}

func TestStoreOnce(t *testing.T) {
	dir := t.TempDir()
	big := strings.Repeat("kube", 32<<10)
	write := func(name, data string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("a", big, 0o755)
	write("b", big, 0o755)
	write("othermode", big, 0o700)
	write("small1", "x", 0o755)
	write("small2", "x", 0o755)
	saved, err := storeOnce(dir)
	if err != nil {
		t.Fatal(err)
	}
	if saved != int64(len(big)) {
		t.Errorf("saved %d bytes, want %d", saved, len(big))
	}
	same := func(x, y string) bool {
		a, err1 := os.Stat(filepath.Join(dir, x))
		b, err2 := os.Stat(filepath.Join(dir, y))
		return err1 == nil && err2 == nil && os.SameFile(a, b)
	}
	if !same("a", "b") || same("a", "othermode") || same("small1", "small2") {
		t.Error("wrong files linked")
	}
	if saved, err := storeOnce(dir); err != nil || saved != 0 {
		t.Errorf("second run saved %d, %v; want nothing to do", saved, err)
	}
}
