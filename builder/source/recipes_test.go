package source

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// All images of a release, from a Debian tree and programs that are small
// texts: names, who shares which layer, and what lies where.
func TestRecipes(t *testing.T) {
	tree := t.TempDir()
	must, _ := osTools()
	for _, p := range append(must, "etc/ssl/certs/ca-certificates.crt", "usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so") {
		put(t, filepath.Join(tree, p), p)
	}
	for at, to := range map[string]string{"sbin": "usr/sbin", "usr/sbin/iptables": "/usr/sbin/ip6tables"} {
		_ = os.Remove(filepath.Join(tree, at))
		if err := os.Symlink(to, filepath.Join(tree, at)); err != nil {
			t.Fatal(err)
		}
	}
	programs := t.TempDir()
	bin := map[string]string{}
	for dir, names := range map[string][]string{"kubernetes": {"kube"}, "etcd": {"etcd", "etcdctl"}, "coredns": {"coredns"}, "pause": {"pause"}, "flannel": {"flanneld"}} {
		bin[dir] = filepath.Join(programs, dir)
		for _, n := range names {
			put(t, filepath.Join(bin[dir], n), n)
		}
	}
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	w := Want{Release: r, Arch: "amd64", CNI: "flannel"}
	c := Config{Cache: t.TempDir(), Epoch: time.Unix(1700000000, 0)}
	m := &modules{config: c, store: c.store()}
	imgs, err := m.recipes(w, tree, bin)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := m.store.assemble(t.Context(), imgs, nil, w.Arch, c.Epoch, progress.To(new(strings.Builder)))
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := wanted(w)
	if err != nil {
		t.Fatal(err)
	}
	if got := indexRefs(t, index); !slices.Equal(got, want) {
		t.Errorf("images %v, want %v", got, want)
	}
	found, err := layoutImages(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{} // the topmost layer of each image, by the end of its name
	for ref, l := range found {
		img, err := index.Image(l.desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(ref, "/")
		last[name] = m.Layers[len(m.Layers)-1].Digest.Hex
		files := map[string]string{}
		for _, l := range m.Layers {
			tarFiles(t, filepath.Join(dir, "blobs/sha256", l.Digest.Hex), files)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		start := append(config.Config.Entrypoint, config.Config.Cmd...)[0]
		if !strings.HasPrefix(start, "/") {
			start = "/usr/local/bin/" + start
		}
		if _, ok := files[start[1:]]; !ok {
			t.Errorf("%s begins with %s, which it does not hold", ref, start)
		}
		if _, ok := files["etc/ssl/certs/ca-certificates.crt"]; ok == strings.Contains(ref, "pause") {
			t.Errorf("%s has CA certificates: %v", ref, ok)
		}
		tools := strings.Contains(ref, "kube-proxy") || strings.Contains(ref, "flannel")
		if files["usr/sbin/iptables"] != "-> /usr/sbin/ip6tables" && tools || (files["usr/sbin/conntrack"] != "") != tools {
			t.Errorf("%s: iptables is %q, conntrack %q", ref, files["usr/sbin/iptables"], files["usr/sbin/conntrack"])
		}
		if strings.Contains(ref, "kube-") && files["usr/local/bin/kube-proxy"] != "= usr/local/bin/kube-apiserver" {
			t.Errorf("%s: kube-proxy is %q instead of a hard link", ref, files["usr/local/bin/kube-proxy"])
		}
	}
	for name, layer := range last {
		if strings.HasPrefix(name, "kube-") != (layer == last["kube-apiserver:v1.19.12"]) {
			t.Errorf("%s has the topmost layer %s", name, layer)
		}
	}
}

// tarFiles adds a tar archive's entries to files: their contents, or what they
// are links to.
func tarFiles(t *testing.T, path string, files map[string]string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
		switch h.Typeflag {
		case tar.TypeSymlink:
			files[h.Name] = "-> " + h.Linkname
		case tar.TypeLink:
			files[h.Name] = "= " + h.Linkname
		}
	}
}
