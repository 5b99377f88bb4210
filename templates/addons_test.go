package templates

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/test-vm/golden"
)

func testParams() AddonParams {
	return AddonParams{
		DNSImage: "k8s.gcr.io/coredns:1.7.0", DNSAddress: "10.96.0.10", DNSDomain: "cluster.local", DNSReplicas: 2,
		ControlPlaneTaints: []string{"node-role.kubernetes.io/master"},
		ProxyImage:         "k8s.gcr.io/kube-proxy:v1.19.12", ProxyConfig: "kind: KubeProxyConfiguration\nmode: \"\"\n", APIServer: "https://192.0.2.10:6443",
		FlannelImage: "ghcr.io/flannel-io/flannel:v0.28.10", PodSubnet: "10.244.0.0/16",
	}
}

// TestAddons compares what is rendered with testdata/addons; make golden
// rewrites that.
func TestAddons(t *testing.T) {
	dual := testParams()
	dual.PodSubnet = "10.244.0.0/16,fd00:10:244::/56"
	dual.DNSAddress = "fd00:10:96::a"
	dual.APIServer = "https://[2001:db8::10]:6443"
	dual.ControlPlaneTaints = append(dual.ControlPlaneTaints, "node-role.kubernetes.io/control-plane")
	for name, p := range map[string]AddonParams{"v1.19.12": testParams(), "dual-stack": dual} {
		for _, a := range []Addon{CoreDNS, KubeProxy, Flannel} {
			got, err := a.Render(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, doc := range strings.Split(string(got), "\n---\n") {
				if err := yaml.UnmarshalStrict([]byte(doc), &map[string]any{}); err != nil {
					t.Errorf("%s: not YAML: %v\n%s", a, err, doc)
				}
			}
			golden.Compare(t, filepath.Join("testdata/addons", string(a)+"."+name+".yaml"), string(got))
		}
	}
}

func TestFlannelConf(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.244.0.0/16":                  `{"Backend":{"Type":"vxlan"},"EnableIPv4":true,"EnableIPv6":false,"EnableNFTables":false,"Network":"10.244.0.0/16"}`,
		"fd00:10:244::/56":               `{"Backend":{"Type":"vxlan"},"EnableIPv4":false,"EnableIPv6":true,"EnableNFTables":false,"IPv6Network":"fd00:10:244::/56"}`,
		"fd00:10:244::/56, 10.1.2.3/16":  `{"Backend":{"Type":"vxlan"},"EnableIPv4":true,"EnableIPv6":true,"EnableNFTables":false,"IPv6Network":"fd00:10:244::/56","Network":"10.1.0.0/16"}`,
		"":                               "want a CIDR",
		"10.244.0.0":                     "want a CIDR",
		"10.244.0.0/16,10.245.0.0/16":    "one CIDR of each IP family",
		"fd00::/56,fd01::/56":            "one CIDR of each IP family",
		"10.1.0.0/16,fd00::/56,fd01::/9": "one CIDR of each IP family",
	} {
		got, err := flannelConf(subnet)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %s", subnet, err, want)
			}
			continue
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(got), &m); err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(m); string(b) != want {
			t.Errorf("%q: %s, want %s", subnet, b, want)
		}
	}
}
