package builder

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// Whatever is said of image names where an image is built, it holds the images
// that its nodes look for.
func TestBakedAreWanted(t *testing.T) {
	const cluster = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"
	const userData = "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\nname: cp1\n"
	for name, c := range map[string]struct{ registry, config string }{
		"nothing said":          {},
		"--image-repository":    {"registry.example.com:5000/k8s", ""},
		"imageRepository":       {"", cluster + "imageRepository: registry.example.com:5000/k8s\n"},
		"both, alike":           {"registry.example.com/k8s", cluster + "imageRepository: registry.example.com/k8s\n"},
		"with a kind of role":   {"", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n---\n" + cluster + "imageRepository: registry.example.com/k8s\n"},
		"dns and etcd":          {"", cluster + "dns: {imageRepository: r.example.com/dns}\netcd: {local: {imageRepository: r.example.com/etcd, imageTag: 3.4.13-0}}\n"},
		"flag and dns":          {"r.example.com/k8s", cluster + "dns: {imageRepository: r.example.com/dns, imageTag: 1.7.0}\n"},
		"external etcd":         {"", cluster + "etcd: {external: {endpoints: ['https://192.0.2.9:2379'], caFile: /etc/e/ca.crt, certFile: /etc/e/c.crt, keyFile: /etc/e/c.key}}\n"},
		"one that says nothing": {"", cluster + "clusterName: prod\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Spec{Version: "v1.19.12", Registry: c.registry}
			var docs []config.Document
			if c.config != "" {
				s.Config = filepath.Join(t.TempDir(), "cluster.yaml")
				if err := os.WriteFile(s.Config, []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
				docs = append(docs, config.Document{Source: "image", Data: []byte(c.config), Baked: true})
			}
			src, err := source.Open("modules", source.Config{Cache: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := Resolve(t.Context(), s, src)
			if err != nil {
				t.Fatal(err)
			}
			m := config.Machine{Hostname: "cp1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}}}}
			n, _, err := config.Load(p.baked(), m, append(docs, config.Document{Source: "user-data", Data: []byte(userData)})...)
			if err != nil {
				t.Fatal(err)
			}
			want, err := images.List(p.baked().Release, n.Cluster.ImageList())
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range want {
				if !slices.Contains(p.Images, w) {
					t.Errorf("the node wants %s; the image holds %q", w, p.Images)
				}
			}
			for _, have := range p.Images { // and nothing for nobody
				if !slices.Contains(want, have) && have != p.baked().Release.Flannel {
					t.Errorf("the image holds %s, which the node does not want", have)
				}
			}
		})
	}
}

// What no node could use is refused before anything is built.
func TestConfigRefused(t *testing.T) {
	const cluster = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"
	for text, want := range map[string]string{
		cluster + "networking: {dnsDomain: '-'}\n":                                 "cluster.yaml",
		cluster + "etcd: {local: {imageTag: 3.5.0-0}}\n":                           "--source modules makes 3.4.13-0",
		cluster + "dns: {imageTag: v1.8.0}\n":                                      "--source modules makes 1.7.0",
		cluster + "imageRepository: r.example.com/other\n":                         "remove one of them",
		"apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nskipPhases: [foo]\n": "cluster.yaml",
	} {
		file := filepath.Join(t.TempDir(), "cluster.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := Spec{Version: "v1.19.12", Config: file}
		if strings.Contains(text, "other") {
			s.Registry = "r.example.com/k8s"
		}
		src, err := source.Open("modules", source.Config{Cache: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Resolve(t.Context(), s, src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if _, _, err := Resolve(t.Context(), Spec{Version: "v1.38.0"}, nil); err == nil || !strings.Contains(err.Error(), "unknown Kubernetes version v1.38.0") {
		t.Errorf("an unknown minor: %v", err)
	}
}
