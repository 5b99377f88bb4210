package containerd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// storeWriter lays out an image store for tests.
type storeWriter struct {
	t     *testing.T
	dir   string
	index ocispec.Index
}

func newStore(t *testing.T) *storeWriter {
	w := &storeWriter{t: t, dir: t.TempDir()}
	w.index.Versioned = specs.Versioned{SchemaVersion: 2}
	for _, d := range []string{"blobs/sha256", images.LayersDir} {
		if err := os.MkdirAll(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// layer makes an unpacked layer by fill and returns its diff ID.
func (w *storeWriter) layer(name string, fill func(dir string)) digest.Digest {
	id := digest.FromString(name)
	dir := filepath.Join(w.dir, images.LayersDir, id.Encoded())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if fill != nil {
		fill(dir)
	}
	return id
}

func (w *storeWriter) blob(mediaType string, v any) ocispec.Descriptor {
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	write(w.t, filepath.Join(w.dir, "blobs/sha256", d.Digest.Encoded()), string(b))
	return d
}

// image adds an image of layers under its names, and writes the index.
func (w *storeWriter) image(layers []digest.Digest, refs ...string) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Versioned: specs.Versioned{SchemaVersion: 2}}
	m.Config = w.blob(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Author:   refs[0],
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: layers},
		Config:   ocispec.ImageConfig{Cmd: []string{"/hello"}},
	})
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l, Size: 1234})
	}
	d := w.blob(ocispec.MediaTypeImageManifest, m)
	for _, ref := range refs {
		d.Annotations = map[string]string{images.RefAnnotation: ref}
		w.index.Manifests = append(w.index.Manifests, d)
	}
	w.writeIndex()
}

func (w *storeWriter) writeIndex() {
	b, err := json.Marshal(w.index)
	if err != nil {
		w.t.Fatal(err)
	}
	write(w.t, filepath.Join(w.dir, "index.json"), string(b))
}

// forget takes an image's name out of the index.
func (w *storeWriter) forget(ref string) {
	var keep []ocispec.Descriptor
	for _, d := range w.index.Manifests {
		if d.Annotations[images.RefAnnotation] != ref {
			keep = append(keep, d)
		}
	}
	w.index.Manifests = keep
	w.writeIndex()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func slash(t *testing.T) *host.Host {
	t.Helper()
	root, err := os.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &host.Host{Root: root}
}

func TestReadStore(t *testing.T) {
	w := newStore(t)
	one, two := w.layer("one", nil), w.layer("two", nil)
	w.image([]digest.Digest{one}, "k8s.gcr.io/pause:3.2", "registry.k8s.io/pause:3.2")
	w.image([]digest.Digest{one, two, one}, "k8s.gcr.io/etcd:3.4.13-0")
	list, err := readStore(slash(t), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || len(list[0].refs) != 2 || list[1].refs[0] != "k8s.gcr.io/etcd:3.4.13-0" {
		t.Fatalf("images %+v", list)
	}
	l := list[1].layers
	if len(l) != 3 || l[0].parent != "" || l[0].chain != one || l[1].parent != one.String() || l[2].parent != l[1].chain.String() {
		t.Errorf("layers %+v", l)
	}
	// The chain ID of the OCI image specification, "Layer ChainID".
	if want := digest.FromString(one.String() + " " + two.String()); l[1].chain != want {
		t.Errorf("chain ID %s, want %s", l[1].chain, want)
	}
	if l[0].again || l[1].again || !l[2].again {
		t.Errorf("the third layer comes again, the others do not: %+v", l)
	}
	if list[0].manifest.Annotations != nil {
		t.Errorf("annotations of the index reached the image: %v", list[0].manifest.Annotations)
	}
}

func TestReadStoreRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(w *storeWriter)
		want string
	}{
		"no index":      {func(w *storeWriter) { os.Remove(filepath.Join(w.dir, "index.json")) }, "cannot read the image store"},
		"index is text": {func(w *storeWriter) { write(w.t, filepath.Join(w.dir, "index.json"), "{") }, "index.json: unexpected end of JSON input"},
		"no name":       {func(w *storeWriter) { w.index.Manifests[0].Annotations = nil; w.writeIndex() }, "has no annotation io.containerd.image.name"},
		"blob cut short": {func(w *storeWriter) {
			name := filepath.Join(w.dir, "blobs/sha256", w.index.Manifests[0].Digest.Encoded())
			b, _ := os.ReadFile(name)
			write(w.t, name, string(b[:len(b)-1]))
		}, "is corrupt: it has "},
		"layer gone": {func(w *storeWriter) {
			os.Remove(filepath.Join(w.dir, images.LayersDir, digest.FromString("one").Encoded()))
		}, "is missing: "},
		"digest with a path": {func(w *storeWriter) {
			w.index.Manifests[0].Digest = "sha256:../../../etc/passwd"
			w.writeIndex()
		}, "invalid checksum digest"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStore(t)
			w.image([]digest.Digest{w.layer("one", nil)}, "k8s.gcr.io/pause:3.2")
			c.harm(w)
			_, err := readStore(slash(t), w.dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// The pause image of the release gets the name that containerd's own
// configuration asks for.
func TestSandboxImage(t *testing.T) {
	w := newStore(t)
	w.image([]digest.Digest{w.layer("two", nil)}, "example.org/k8s/etcd:3.4.13-0")
	rel, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	o := Handover{host: slash(t), release: rel, store: w.dir}
	if _, err := o.want(); err == nil || !strings.Contains(err.Error(), "no pause image pause:3.2") {
		t.Errorf("error %v", err)
	}
	w.image([]digest.Digest{w.layer("one", nil)}, "example.org/k8s/pause:3.2")
	list, err := o.want()
	if err != nil {
		t.Fatal(err)
	}
	if got := list[1].refs; len(got) != 2 || got[1] != SandboxImage {
		t.Errorf("the pause image's names are %q", got)
	}
}
