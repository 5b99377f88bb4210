package images_test

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

const good = `# a comment
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
anything: goes
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
x-repo: &r registry.example.com
`

func TestParseListConfig(t *testing.T) {
	const head = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"
	for in, want := range map[string]string{
		head + "imageRepo: x\n":                           `c.yaml:3: ClusterConfiguration has no field "imageRepo"`,
		head + "dns: {tag: x}\n":                          `c.yaml:3: dns has no field "tag"; it has imageRepository, imageTag, type`,
		head + "dns: {disabled: true}\n":                  `c.yaml:3: dns has no field "disabled"`,
		head + "proxy: {disabled: true}\n":                `ClusterConfiguration has no field "proxy"`,
		head + "etcd:\n  local:\n    image: x\n":          `c.yaml:5: local has no field "image"`,
		head + "etcd:\n  external: [a]\n":                 `c.yaml:4: external must be a mapping`,
		head + "etcd:\n  external: {}\n  local: {}\n":     `c.yaml:4: etcd.local and etcd.external exclude each other`,
		head + "imageRepository: [x]\n":                   `c.yaml:3: imageRepository must be a string`,
		head + "imageRepository: 5\n":                     `c.yaml:3: imageRepository must be a string: put quotes around it`,
		head + "dns: {imageTag: 1.10}\n":                  `imageTag must be a string`,
		head + "useHyperKubeImage: \"true\"\n":            `c.yaml:3: useHyperKubeImage must be true or false`,
		head + "useHyperKubeImage: 1\n":                   `useHyperKubeImage must be true or false`,
		head + "imageRepository: a\nimageRepository: b\n": `c.yaml:4: imageRepository is given twice`,
		head + "<<: {imageRepository: b}\n":               `merge keys are not read`,
		head + "---\n" + head:                             `c.yaml:4: ClusterConfiguration is given twice, first in line 1`,
		head + "kubernetesVersion: stable-1.19\n":         `labels such as stable-1 need the network`,
		head + "imageRepository: \"a b\"\n":               `cannot use c.yaml: imageRepository: "a b" is not an image repository`,
		"kind: ClusterConfiguration\n":                    `c.yaml:1: kind and apiVersion (GROUP/VERSION) must be set`,
		"- a\n":                                           `c.yaml:1: the document must be a mapping`,
		"":                                                `cannot use c.yaml: it holds neither`,
		"a: [\n":                                          `cannot read c.yaml: yaml: `,
		"apiVersion: v1\nkind: Pod\n":                     `kind and apiVersion (GROUP/VERSION) must be set`,
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n":           `c.yaml:1: Kubernetes v1.19.12 does not read kubeadm.k8s.io/v1beta4, only v1beta1 and v1beta2`,
		"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration": `it holds neither a ClusterConfiguration nor an InitConfiguration`,
	} {
		c, err := images.ParseListConfig(lookup(t, "v1.19.12"), "c.yaml", []byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", in, c, err, want)
		}
	}
	// An anchor is followed, also into another field.
	c, err := images.ParseListConfig(lookup(t, "v1.19.12"), "c.yaml", []byte(head+"imageRepository: &r registry.example.com\ndns: {imageRepository: *r}\n"))
	if err != nil || c.DNSRepository != "registry.example.com" {
		t.Errorf("with an anchor: %+v, %v", c, err)
	}
}

// FuzzParseListConfig: no input makes the parser panic, and what it takes can
// be listed.
func FuzzParseListConfig(f *testing.F) {
	f.Add("v1.19.12", good)
	f.Add("v1.37.2", "")
	for _, v := range oracleVersions {
		r, err := images.Lookup(v)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range listCases {
			f.Add(v, c.doc(r, r.ConfigAPI))
		}
	}
	f.Fuzz(func(t *testing.T, version, doc string) {
		r, err := images.Lookup(version)
		if err != nil {
			return
		}
		c, err := images.ParseListConfig(r, "c.yaml", []byte(doc))
		if err != nil {
			return
		}
		l, err := images.List(r, c)
		if err != nil || len(l) == 0 {
			t.Errorf("accepted, but not listed: %v", err)
		}
		for _, ref := range l {
			if strings.ContainsAny(ref, " \n\t") || !strings.Contains(ref, ":") {
				t.Errorf("listed %q", ref)
			}
		}
	})
}
