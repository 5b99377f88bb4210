package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/images/pull"
)

// randomImage is a small image for linux/amd64.
func randomImage(t *testing.T) v1.Image {
	img, err := random.Image(200, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func tgz(t *testing.T, files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A whole release comes from loopback servers of the official layouts.
func TestRelease(t *testing.T) {
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	w := Want{Release: r, Arch: "amd64", CNI: "flannel", Images: []string{"busybox"}}

	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	at := strings.TrimPrefix(reg.URL, "http://")
	refs, err := wanted(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		_, path, _ := strings.Cut(ref, "/")
		tag, err := name.ParseReference(at + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(tag, randomImage(t)); err != nil {
			t.Fatal(err)
		}
	}
	m, url := newMirror(t)
	m.release("/release/v1.19.12/bin/linux/amd64/kubelet", []byte("a kubelet"), ".sha512")
	m.release("/release/v1.19.12/bin/linux/amd64/kubectl", []byte("a kubectl"), ".sha256")
	many := map[string]string{"./": "", "./README.md": "no plugin"}
	for _, p := range plugins() {
		many["./"+p] = "plugin " + p
	}
	delete(many, "./")
	m.release("/cni/v1.9.1/cni-plugins-linux-amd64-v1.9.1.tgz", tgz(t, many), ".sha256")
	m.release("/cni/v0.9.1/cni-plugins-linux-amd64-v0.9.1.tgz", tgz(t, map[string]string{"./flannel": "plugin flannel", "./bridge": "old"}), ".sha256")

	offline := false
	src, err := Open("release", Config{Cache: t.TempDir(), BaseURL: url + "/release/", PluginsURL: url + "/cni",
		Pull: func(ctx context.Context, refs []string, arch, dir string) error {
			if offline {
				return errors.New("there is no network")
			}
			o := pull.Options{Images: refs, Dir: dir, Platform: "linux/" + arch}
			for _, from := range []string{"k8s.gcr.io", "docker.io", "ghcr.io"} {
				o.Mirrors = append(o.Mirrors, pull.Mirror{From: from, To: at})
			}
			_, err := pull.Pull(ctx, o)
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	out, err := src.Fetch(t.Context(), w, "", progress.To(&said))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"kubelet": "a kubelet", "kubectl": "a kubectl", "cni/bridge": "plugin bridge", "cni/flannel": "plugin flannel"} {
		b, err := os.ReadFile(out.Binaries[name])
		if string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
		if st, err := os.Stat(out.Binaries[name]); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	index, err := layout.ImageIndexFromPath(out.Images)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if got := indexRefs(t, index); !slices.Equal(got, refs) {
		t.Errorf("images %v, want %v", got, refs)
	}

	// Another fetch asks nobody for anything.
	asked := len(m.log)
	offline = true
	again, err := src.Fetch(t.Context(), w, "", progress.To(&said))
	if err != nil || again.Images != out.Images || len(m.log) != asked {
		t.Errorf("again: %v, %v, %d requests", again, err, len(m.log)-asked)
	}

	offline = false

	cs, err := src.Resolve(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(cs, func(c Component) bool { return c.Name == "kubelet" }); i < 0 || cs[i].Source != url+"/release/v1.19.12/bin/linux/amd64/kubelet" {
		t.Errorf("kubelet is missing or wrong in %+v", cs)
	}
	if i := slices.IndexFunc(cs, func(c Component) bool { return c.Name == "k8s.gcr.io/pause:3.2" }); i < 0 || cs[i].Source != "registry registry.k8s.io" {
		t.Errorf("pause is missing or wrong in %+v", cs)
	}

	w.Release.Version = "v1.19.99"
	if _, err := src.Fetch(t.Context(), w, "", progress.To(&said)); err == nil || !strings.Contains(err.Error(), "is there a release v1.19.99 for linux/amd64?") {
		t.Errorf("no such release: %v", err)
	}
	w.Release.Version, w.Arch = "v1.19.12", "arm64"
	m.release("/release/v1.19.12/bin/linux/arm64/kubelet", []byte("a kubelet"), ".sha512")
	m.release("/release/v1.19.12/bin/linux/arm64/kubectl", []byte("a kubectl"), ".sha512")
	m.release("/cni/v1.9.1/cni-plugins-linux-arm64-v1.9.1.tgz", tgz(t, map[string]string{"./bridge": ""}), ".sha256")
	m.release("/cni/v0.9.1/cni-plugins-linux-arm64-v0.9.1.tgz", tgz(t, map[string]string{"./flannel": ""}), ".sha256")
	if _, err := src.Fetch(t.Context(), w, "", progress.To(&said)); err == nil || !strings.Contains(err.Error(), "lacks bandwidth, firewall") {
		t.Errorf("a tarball without plugins: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(src.(*officials).store.dir, "*", "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The container runtime comes from its own project's tarball, for those versions
// that want one.
func TestReleaseRuntime(t *testing.T) {
	m, url := newMirror(t)
	src, err := Open("release", Config{Cache: t.TempDir(), RuntimeURL: url + "/"})
	if err != nil {
		t.Fatal(err)
	}
	o := src.(*officials)
	for version, want := range map[string]string{"v1.19.12": "", "v1.37.2": url + "/v2.4.2/containerd-static-2.4.2-linux-amd64.tar.gz"} {
		r, err := images.Lookup(version)
		if err != nil {
			t.Fatal(err)
		}
		cs, err := src.Resolve(t.Context(), Want{Release: r, Arch: "amd64", CNI: "none"})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, c := range cs {
			got[c.Name] = c.Source
		}
		for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
			if got[name] != want {
				t.Errorf("%s of %s is from %q, want %q", name, version, got[name], want)
			}
		}
		if want == "" {
			continue
		}
		all := o.archives(Want{Release: r, Arch: "amd64"})
		a := all[len(all)-1]
		m.release(strings.TrimPrefix(want, url), tgz(t, map[string]string{"ctr": "not in bin", "bin/ctr": "a ctr", "bin/containerd": "a containerd",
			"bin/containerd-shim-runc-v2": "a shim", "bin/containerd-stress": "stress"}), ".sha256sum")
		dir, err := o.fetch(t.Context(), a.url, progress.To(new(strings.Builder)), a.unpack)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"ctr": "a ctr", "containerd": "a containerd", "containerd-shim-runc-v2": "a shim", "containerd-stress": ""} {
			if b, _ := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
				t.Errorf("%s holds %q, want %q", name, b, want)
			}
		}
	}
}

func indexRefs(t *testing.T, index v1.ImageIndex) []string {
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, d := range m.Manifests {
		refs = append(refs, d.Annotations[images.RefAnnotation])
	}
	return refs
}
