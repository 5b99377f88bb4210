package images_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// kubeadm is the path of the real kubeadm of a version: kubeadm-VERSION in the
// directory $KBUILD_ORACLE.
func kubeadm(t *testing.T, version string) string {
	t.Helper()
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
		}
		t.Skip("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
	}
	return filepath.Join(dir, "kubeadm-"+version)
}

// docs are a ClusterConfiguration with the given lines, and an
// InitConfiguration that keeps kubeadm from looking at this machine.
func docs(api, lines string) string {
	return "apiVersion: kubeadm.k8s.io/" + api + `
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 192.0.2.1}
nodeRegistration: {name: node, criSocket: unix:///run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/` + api + `
kind: ClusterConfiguration
` + lines + "\n"
}

// listCase is a config that kubeadm and we must see alike.
type listCase struct {
	name, lines string
	versions    string // the releases that it is for; "" is all
	bad         bool   // both must refuse it
}

// VERSION stands for the release's version, BELOW and ABOVE for a version of
// the minor before and after it, OLD for one that is two minors older.
var listCases = []listCase{
	{name: "default", lines: "kubernetesVersion: VERSION"},
	{name: "without v", lines: "kubernetesVersion: 1.RELEASE"},
	{name: "minor below", lines: "kubernetesVersion: BELOW"},
	{name: "minor above", lines: "kubernetesVersion: ABOVE"},
	{name: "two minors below", lines: "kubernetesVersion: OLD", bad: true},
	{name: "suffix", lines: "kubernetesVersion: VERSION-beta.1+vendor.3"},
	{name: "repository", lines: "kubernetesVersion: VERSION\nimageRepository: registry.example.com:5000/k8s/mirror"},
	{name: "the default repository", lines: "kubernetesVersion: VERSION\nimageRepository: REGISTRY"},
	{name: "etcd tag", lines: "kubernetesVersion: VERSION\netcd: {local: {imageTag: 3.4.99-1}}"},
	{name: "etcd repository", lines: "kubernetesVersion: VERSION\netcd:\n  local:\n    imageRepository: quay.io/coreos\n    dataDir: /var/lib/etcd"},
	{name: "etcd external", lines: "kubernetesVersion: VERSION\netcd: {external: {endpoints: [https://192.0.2.9:2379], caFile: /ca, certFile: /crt, keyFile: /key}}"},
	{name: "etcd both", lines: "kubernetesVersion: VERSION\netcd: {local: {}, external: {endpoints: [http://192.0.2.9:2379]}}", bad: true},
	{name: "dns tag", lines: "kubernetesVersion: VERSION\ndns: {imageTag: \"1.9\"}"},
	{name: "dns repository", lines: "kubernetesVersion: VERSION\ndns: {imageRepository: docker.io/coredns, imageTag: 1.9.1}"},
	{name: "dns at the default repository of a mirror", lines: "kubernetesVersion: VERSION\nimageRepository: registry.example.com\ndns: {imageRepository: REGISTRY}"},
	{name: "everything", lines: "kubernetesVersion: VERSION\nimageRepository: r.example.com\nclusterName: c\nnetworking: {podSubnet: 10.1.0.0/16}\netcd: {local: {imageRepository: e.example.com/x, imageTag: v9}}\ndns: {imageRepository: d.example.com, imageTag: v8}"},
	{name: "nulls", lines: "kubernetesVersion: VERSION\nimageRepository: null\netcd: null\ndns: ~"},
	{name: "numeric tag", lines: "kubernetesVersion: VERSION\ndns: {imageTag: 1.9}", bad: true},
	{name: "boolean repository", lines: "kubernetesVersion: VERSION\nimageRepository: yes", bad: true},
	{name: "kind twice", lines: "kubernetesVersion: VERSION\n---\napiVersion: kubeadm.k8s.io/API\nkind: ClusterConfiguration\n", bad: true},
	{name: "no version", lines: "kubernetesVersion: latest.12", bad: true},

	{name: "kube-dns", lines: "kubernetesVersion: VERSION\ndns: {type: kube-dns}", versions: "v1.19.12 v1.20.15"},
	{name: "kube-dns elsewhere", lines: "kubernetesVersion: VERSION\ndns: {type: kube-dns, imageRepository: d.example.com, imageTag: 1.15.0}", versions: "v1.19.12 v1.20.15"},
	{name: "CoreDNS", lines: "kubernetesVersion: VERSION\ndns: {type: CoreDNS}", versions: "v1.19.12 v1.20.15"},
	{name: "hyperkube", lines: "kubernetesVersion: VERSION\nuseHyperKubeImage: true", versions: "v1.19.12 v1.20.15"},
	{name: "hyperkube elsewhere", lines: "kubernetesVersion: VERSION\nuseHyperKubeImage: yes\nimageRepository: r.example.com", versions: "v1.19.12 v1.20.15"},

	{name: "no add-ons", lines: "kubernetesVersion: VERSION\ndns: {disabled: true}\nproxy: {disabled: true}", versions: "v1.37.2"},
	{name: "no proxy", lines: "kubernetesVersion: VERSION\nproxy: {disabled: true}", versions: "v1.37.2"},
	{name: "scheme", lines: "kubernetesVersion: VERSION\nimageRepository: https://r.example.com", versions: "v1.37.2", bad: true},
	{name: "capital letters", lines: "kubernetesVersion: VERSION\nimageRepository: r.example.com/K8s", versions: "v1.37.2", bad: true},
}

var oracleVersions = []string{"v1.19.12", "v1.20.15", "v1.37.2"}

// doc fills in what stands for the release's values.
func (c listCase) doc(r images.Release, api string) string {
	minor := r.Minor()
	v := func(m int) string { return "v1." + strconv.Itoa(m) + ".3" }
	return docs(api, strings.NewReplacer("VERSION", r.Version, "RELEASE", strings.TrimPrefix(r.Version, "v1."),
		"REGISTRY", r.Registry, "BELOW", v(minor-1), "ABOVE", v(minor+1), "OLD", v(minor-2), "API", api).Replace(c.lines))
}

// TestOracle holds our list against that of real kubeadm, for each config API
// that it reads.
func TestOracle(t *testing.T) {
	for _, version := range oracleVersions {
		r, err := images.Lookup(version)
		if err != nil {
			t.Fatal(err)
		}
		for _, api := range r.ConfigAPIs {
			for _, c := range listCases {
				if c.versions != "" && !strings.Contains(c.versions, version) {
					continue
				}
				t.Run(version+"/"+api+"/"+c.name, func(t *testing.T) {
					doc := c.doc(r, api)
					file := filepath.Join(t.TempDir(), "config.yaml")
					if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
						t.Fatal(err)
					}
					cmd := exec.CommandContext(t.Context(), kubeadm(t, version), "config", "images", "list", "--config", file)
					var stdout, stderr bytes.Buffer
					cmd.Stdout, cmd.Stderr = &stdout, &stderr
					theirErr := cmd.Run()
					if _, ok := theirErr.(*exec.ExitError); theirErr != nil && !ok {
						t.Fatal(theirErr)
					}
					ours, ourErr := list(r, doc)
					if (theirErr != nil) != c.bad || (ourErr != nil) != c.bad {
						t.Fatalf("kubeadm: %v %s\nwe: %v\nfor:\n%s", theirErr, stderr.String(), ourErr, doc)
					}
					if !c.bad && stdout.String() != ours {
						t.Errorf("kubeadm:\n%s\nwe:\n%s\nfor:\n%s", stdout.String(), ours, doc)
					}
				})
			}
		}
	}
}

// TestOracleOtherAPIs: a config API is read by both or by none.
func TestOracleOtherAPIs(t *testing.T) {
	for _, version := range oracleVersions {
		r, err := images.Lookup(version)
		if err != nil {
			t.Fatal(err)
		}
		for _, api := range []string{"v1alpha3", "v1beta1", "v1beta2", "v1beta3", "v1beta4", "v1"} {
			t.Run(version+"/"+api, func(t *testing.T) {
				doc := listCase{lines: "kubernetesVersion: VERSION"}.doc(r, api)
				file := filepath.Join(t.TempDir(), "config.yaml")
				if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
					t.Fatal(err)
				}
				out, theirErr := exec.CommandContext(t.Context(), kubeadm(t, version), "config", "images", "list", "--config", file).CombinedOutput()
				_, ourErr := list(r, doc)
				if (theirErr == nil) != (ourErr == nil) {
					t.Errorf("kubeadm: %v %s\nwe: %v", theirErr, out, ourErr)
				}
			})
		}
	}
}

// list is what we print for doc.
func list(r images.Release, doc string) (string, error) {
	c, err := images.ParseListConfig(r, "config.yaml", []byte(doc))
	if err != nil {
		return "", err
	}
	l, err := images.List(r, c)
	return strings.Join(l, "\n") + "\n", err
}
