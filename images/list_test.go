package images_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

func lookup(t *testing.T, v string) images.Release {
	t.Helper()
	r, err := images.Lookup(v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGoldens: all facts of the releases, and what is listed for each config
// that the oracle knows. The oracle, where it runs, holds the same lists
// against real kubeadm.
func TestGoldens(t *testing.T) {
	for _, v := range append([]string{"v1.19.0", "v1.20.0"}, oracleVersions...) {
		r := lookup(t, v)
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, filepath.Join("testdata", "release-"+v+".json"), string(b)+"\n")
	}
	for _, v := range oracleVersions {
		r := lookup(t, v)
		var s strings.Builder
		for _, c := range listCases {
			if c.bad || c.versions != "" && !strings.Contains(c.versions, v) {
				continue
			}
			out, err := list(r, c.doc(r, r.ConfigAPI))
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			s.WriteString("# " + c.name + "\n" + out + "\n")
		}
		golden.Compare(t, filepath.Join("testdata", "list-"+v+".txt"), s.String())
	}
}

func TestLookup(t *testing.T) {
	for v, want := range map[string]string{
		"v1.19.12":   "",
		"1.20.15":    "",
		"v1.38.0":    "unknown Kubernetes version v1.38.0: this kbuild knows v1.19.0-v1.19.16, v1.20.0-v1.20.15, v1.21.0-",
		"v1.18.20":   "unknown Kubernetes version",
		"v2.19.12":   "unknown Kubernetes version",
		"v1.19.17":   "the newest v1.19 that this kbuild knows is v1.19.16",
		"v1.19":      "want vMAJOR.MINOR.PATCH",
		"":           "want vMAJOR.MINOR.PATCH",
		"v1.19.-1":   "want vMAJOR.MINOR.PATCH",
		"v1.19.1-rc": "want vMAJOR.MINOR.PATCH",
		"v1.+19.1":   "want vMAJOR.MINOR.PATCH",
		"v1.019.1":   "want vMAJOR.MINOR.PATCH",
	} {
		r, err := images.Lookup(v)
		if want == "" {
			if err != nil || r.Version != "v"+strings.TrimPrefix(v, "v") {
				t.Errorf("%q: %v, %v", v, r.Version, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", v, err, want)
		}
	}
	// Nobody who changes a release's facts changes the table.
	r := lookup(t, "v1.19.12")
	r.Labels[0], r.EtcdFor[19], r.ConfigAPIs[0] = "changed", "changed", "changed"
	if again := lookup(t, "v1.19.12"); again.Labels[0] == "changed" || again.EtcdFor[19] == "changed" || again.ConfigAPIs[0] == "changed" {
		t.Errorf("the table was changed: %+v", again)
	}
}

func TestList(t *testing.T) {
	r := lookup(t, "v1.37.2")
	got, err := images.List(r, images.ListConfig{ImageRepository: "registry.example.com", EtcdExternal: true, ProxyDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"registry.example.com/kube-apiserver:v1.37.2", "registry.example.com/kube-controller-manager:v1.37.2",
		"registry.example.com/kube-scheduler:v1.37.2", "registry.example.com/coredns:v1.14.6", "registry.example.com/pause:3.10.2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, c := range []struct {
		c    images.ListConfig
		want string
	}{
		{images.ListConfig{HyperKube: true}, "the hyperkube image no longer exists"},
		{images.ListConfig{DNSType: images.KubeDNS}, "kube-dns is no longer supported"},
		{images.ListConfig{DNSType: "bind"}, "neither CoreDNS nor kube-dns"},
		{images.ListConfig{KubernetesVersion: "stable-1"}, "not looked up"},
		{images.ListConfig{KubernetesVersion: "v1.35.9"}, "no control plane below v1.36.0"},
		{images.ListConfig{KubernetesVersion: "v1.36.0-rc.1"}, "no control plane below v1.36.0"},
		{images.ListConfig{KubernetesVersion: "v2.36.1"}, "no control plane below"},
		{images.ListConfig{ImageRepository: "https://x"}, "not an image repository"},
		{images.ListConfig{ImageRepository: "a b"}, "not an image repository"},
		{images.ListConfig{DNSRepository: "x/"}, "dns.imageRepository"},
		{images.ListConfig{EtcdTag: "a:b"}, "not an image tag"},
	} {
		if l, err := images.List(r, c.c); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v; want %q", c.c, l, err, c.want)
		}
	}
}

func TestPullName(t *testing.T) {
	for in, want := range map[string]string{
		"k8s.gcr.io/etcd:3.4.13-0":      "registry.k8s.io/etcd:3.4.13-0",
		"registry.k8s.io/pause:3.2":     "registry.k8s.io/pause:3.2",
		"k8s.gcr.io.example.com/etcd:1": "k8s.gcr.io.example.com/etcd:1",
	} {
		if got := images.PullName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
