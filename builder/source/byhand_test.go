package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// byHandDir lays out everything of v1.19.12: some images in an OCI layout,
// pause in a tarball of ours, the rest in one as docker save writes it.
func byHandDir(t *testing.T) (string, Want) {
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	w := Want{Release: r, Arch: "amd64", CNI: "flannel"}
	dir := t.TempDir()
	for _, name := range []string{"bin/kubelet", "bin/kubectl", "cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap", "cni/flannel", "cni/extra"} {
		put(t, filepath.Join(dir, name), "program "+name)
	}
	refs, err := wanted(w)
	if err != nil {
		t.Fatal(err)
	}
	lay, err := layout.Write(filepath.Join(dir, "images"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	docker := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		switch {
		case strings.Contains(ref, "kube-"): // saved under today's registry
			if err := lay.AppendImage(randomImage(t), layout.WithAnnotations(map[string]string{
				"org.opencontainers.image.ref.name": images.PullName(ref)})); err != nil {
				t.Fatal(err)
			}
		default:
			tag, err := name.NewTag(ref)
			if err != nil {
				t.Fatal(err)
			}
			docker[tag] = randomImage(t)
		}
	}
	if err := tarball.MultiRefWriteToFile(filepath.Join(dir, "images/all.tar"), docker); err != nil {
		t.Fatal(err)
	}
	return dir, w
}

func put(t *testing.T, path, text string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestByHand(t *testing.T) {
	dir, w := byHandDir(t)
	src, err := Open("dir:"+dir, Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	out, err := src.Fetch(t.Context(), w, "", progress.To(&said))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubelet", "cni/flannel", "cni/extra"} {
		b, err := os.ReadFile(out.Binaries[name])
		if !strings.HasSuffix(string(b), "/"+filepath.Base(name)) || strings.HasPrefix(out.Binaries[name], dir) {
			t.Errorf("%s at %s holds %q, %v", name, out.Binaries[name], b, err)
		}
	}
	index, err := layout.ImageIndexFromPath(out.Images)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	want, err := wanted(w)
	if got := indexRefs(t, index); err != nil || !slices.Equal(got, want) {
		t.Errorf("images %v, want %v", got, want)
	}
	cs, err := src.Resolve(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	sums := ""
	for _, c := range cs {
		if !strings.HasPrefix(c.Digest, "sha256:") || !strings.HasPrefix(c.Source, "file ") {
			t.Errorf("%+v", c)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
			sum, err := fileDigest(f)
			if err != nil {
				t.Fatal(err)
			}
			sums += fmt.Sprintf("%s  ./%s\n", sum, f[len(dir)+1:])
		}
	}
	list := filepath.Join(dir, "SHA256SUMS")
	put(t, list, sums)
	if _, err := src.Fetch(t.Context(), w, "", progress.To(&said)); err != nil {
		t.Errorf("with SHA256SUMS: %v", err)
	}
	for text, want := range map[string]string{
		strings.Replace(sums, "  ./bin/kubectl", "  ./bin/other", 1): "SHA256SUMS does not list it",
		sums + "not a sum\n": fmt.Sprintf("line %d", strings.Count(sums, "\n")+1),
	} {
		put(t, list, text)
		if _, err := src.Fetch(t.Context(), w, "", progress.To(&said)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	put(t, list, sums)
	put(t, filepath.Join(dir, "bin/kubelet"), "evil")
	if _, err := src.Fetch(t.Context(), w, "", progress.To(&said)); err == nil || !strings.Contains(err.Error(), "cannot trust "+filepath.Join(dir, "bin/kubelet")) {
		t.Errorf("a changed kubelet: %v", err)
	}
}

func TestByHandMissing(t *testing.T) {
	dir, w := byHandDir(t)
	for _, name := range []string{"bin/kubelet", "cni/portmap", "images/all.tar"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	src, err := Open("dir:"+dir, Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.Resolve(t.Context(), w)
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{
		"6 things are missing", "bin/kubelet: put the program from https://dl.k8s.io/release/v1.19.12/bin/linux/amd64/kubelet there",
		"cni/portmap: put", "docker save -o FILE.tar k8s.gcr.io/pause:3.2", "k8s.gcr.io/etcd:3.4.13-0", "k8s.gcr.io/coredns:1.7.0", "ghcr.io/flannel-io/flannel:v0.28.10",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "kube-proxy") {
		t.Errorf("%v\nnames what is there", err)
	}
	w.Arch = "arm64"
	put(t, filepath.Join(dir, "bin/kubelet"), "")
	if _, err := Open("dir:"+filepath.Join(dir, "nowhere"), Config{}); err == nil {
		t.Error("a directory that is not there will do")
	}
}

// Images of another architecture are refused.
func TestByHandArch(t *testing.T) {
	dir, w := byHandDir(t)
	src, err := Open("dir:"+dir, Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w.Arch = "arm64"
	if _, err := src.Fetch(t.Context(), w, "", progress.To(new(strings.Builder))); err == nil || !strings.Contains(err.Error(), "it is for linux/amd64 instead of linux/arm64") {
		t.Errorf("got %v", err)
	}
}

func TestTarballBad(t *testing.T) {
	dir, w := byHandDir(t)
	all := filepath.Join(dir, "images/all.tar")
	whole, err := os.ReadFile(all)
	if err != nil {
		t.Fatal(err)
	}
	src, err := Open("dir:"+dir, Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[700] ^= 1 // in the first file after its header: a config or layer
	for name, text := range map[string][]byte{"cut off": whole[:len(whole)/2], "no tarball": []byte("hello"), "flipped": flipped} {
		put(t, all, string(text))
		if _, err := src.Fetch(t.Context(), w, "", progress.To(new(strings.Builder))); err == nil || !strings.Contains(err.Error(), "all.tar") && !strings.Contains(err.Error(), "missing") {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
