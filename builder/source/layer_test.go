package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

func TestWriteLayer(t *testing.T) {
	epoch := time.Unix(1700000000, 5)
	from := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(from, []byte("ELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []file{
		{Path: "usr/bin/b", Mode: 0o755, From: from},
		{Path: "usr/bin/a", Mode: 0o755, Hard: "usr/bin/b"},
		{Path: "tmp", Mode: 0o1777},
		{Path: "bin", Link: "usr/bin"},
		{Path: "etc/passwd", Mode: 0o644, Data: "root"},
	}
	var first []byte
	for range 3 {
		var b bytes.Buffer
		if err := writeLayer(t.Context(), &b, layer{"test", files}, epoch); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Fatal("the same files in another order make another layer")
		}
		slices.Reverse(files)
	}
	var got []string
	for tr := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(time.Unix(1700000000, 0)) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: %v %d:%d", h.Name, h.ModTime, h.Uid, h.Gid)
		}
		got = append(got, fmt.Sprintf("%c %o %s %s", h.Typeflag, h.Mode, h.Name, h.Linkname))
	}
	want := []string{
		"2 777 bin usr/bin", "5 755 etc/ ", "0 644 etc/passwd ", "5 1777 tmp/ ",
		"5 755 usr/ ", "5 755 usr/bin/ ", "0 755 usr/bin/b ", "1 755 usr/bin/a usr/bin/b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	err := writeLayer(t.Context(), io.Discard, layer{"test", append(files, file{Path: "tmp", Mode: 0o755})}, epoch)
	if err == nil || !strings.Contains(err.Error(), "two files have the path tmp") {
		t.Errorf("a place taken twice: %v", err)
	}
}

// The judge is go-containerregistry: it reads the layout and checks digests,
// sizes and diff IDs.
func TestAssemble(t *testing.T) {
	s, epoch := store{t.TempDir()}, time.Unix(1700000000, 0)
	base := layer{"base", []file{{Path: "etc/passwd", Mode: 0o644, Data: "root:x:0:0::/:\n"}}}
	kube := layer{"kube", []file{{Path: "usr/local/bin/kube", Mode: 0o755, Data: "ELF"}}}
	imgs := []image{
		{"k8s.gcr.io/kube-scheduler:v1", []layer{base, kube}, v1.Config{Entrypoint: []string{"/usr/local/bin/kube"}}},
		{"k8s.gcr.io/kube-apiserver:v1", []layer{base, kube}, v1.Config{}},
	}
	var said strings.Builder
	dir, err := s.assemble(t.Context(), imgs, nil, "arm64", epoch, progress.To(&said))
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Its full validation takes every layer for compressed; diff IDs and blobs
	// are looked at below.
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, d := range m.Manifests {
		refs = append(refs, d.Annotations[images.RefAnnotation])
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil || c.Architecture != "arm64" || c.OS != "linux" || !c.Created.Equal(epoch) {
			t.Errorf("config %+v, %v", c, err)
		}
		m, err := img.Manifest()
		if err != nil || len(m.Layers) != 2 || m.Layers[0].Digest != c.RootFS.DiffIDs[0] || m.Layers[1].Digest != c.RootFS.DiffIDs[1] {
			t.Errorf("manifest %+v, %v", m, err)
		}
	}
	if want := []string{"k8s.gcr.io/kube-apiserver:v1", "k8s.gcr.io/kube-scheduler:v1"}; !slices.Equal(refs, want) {
		t.Errorf("got images %v", refs)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil || len(blobs) != 2+2+2 {
		t.Errorf("%d blobs instead of two layers, two configs, two manifests (%v)", len(blobs), err)
	}
	for _, b := range blobs {
		if sum, err := fileDigest(b); err != nil || sum != filepath.Base(b) {
			t.Errorf("blob %s has digest %s, %v", b, sum, err)
		}
	}
	again, err := store{t.TempDir()}.assemble(t.Context(), imgs, nil, "arm64", epoch, progress.To(&said))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index.json", "oci-layout"} {
		a, errA := os.ReadFile(filepath.Join(dir, name))
		b, errB := os.ReadFile(filepath.Join(again, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs in another cache: %v %v", name, errA, errB)
		}
	}
}

// TestChooseDamaged: an index of images counts by its digest, as the images do.
func TestChooseDamaged(t *testing.T) {
	dir := t.TempDir()
	lay, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	one := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: randomImage(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	if err := lay.AppendIndex(one); err != nil {
		t.Fatal(err)
	}
	digest, err := one.Digest()
	if err != nil {
		t.Fatal(err)
	}
	d := v1.Descriptor{MediaType: types.OCIImageIndex, Digest: digest}
	if got, err := choose(dir, d, "amd64"); err != nil || got.Digest == digest {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := checkImage(dir, d); err != nil {
		t.Error(err)
	}
	blob := blobPath(dir, digest)
	b, err := os.ReadFile(blob)
	if err == nil {
		err = os.WriteFile(blob, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := choose(dir, d, "amd64"); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a changed index: %v", err)
	}
	if err := checkImage(dir, d); err == nil {
		t.Error("a changed index is whole")
	}
}
