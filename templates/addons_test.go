package templates

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

func testParams(t *testing.T, version string) AddonParams {
	t.Helper()
	rel, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	return AddonParams{
		Release:  rel,
		DNSImage: "k8s.gcr.io/coredns:1.7.0", DNSAddress: "10.96.0.10", DNSDomain: "cluster.local", DNSReplicas: 2,
		ProxyImage: "k8s.gcr.io/kube-proxy:v1.19.12", ProxyConfig: "kind: KubeProxyConfiguration\nmode: \"\"\n", APIServer: "https://192.0.2.10:6443",
		FlannelImage: "ghcr.io/flannel-io/flannel:v0.28.10", PodSubnet: "10.244.0.0/16",
	}
}

func rendered(t *testing.T, a Addon, p AddonParams) string {
	t.Helper()
	b, err := a.Render(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(string(b), "\n---\n") {
		if err := yaml.UnmarshalStrict([]byte(doc), &map[string]any{}); err != nil {
			t.Errorf("%s: not YAML: %v\n%s", a, err, doc)
		}
	}
	return string(b)
}

// TestAddons compares what is rendered with testdata/addons; make golden
// rewrites that. Of the versions between the oldest and the newest it holds what
// changes from one to the next.
func TestAddons(t *testing.T) {
	known := images.Known()
	newest := known[len(known)-1].Newest
	dual := testParams(t, newest)
	dual.PodSubnet = "10.244.0.0/16,fd00:10:244::/56"
	dual.DNSAddress = "fd00:10:96::a"
	dual.APIServer = "https://[2001:db8::10]:6443"
	for _, a := range []Addon{CoreDNS, KubeProxy, Flannel} {
		compare := func(name, got string) { golden.Compare(t, filepath.Join("testdata/addons", string(a)+"."+name), got) }
		before, changes := "", ""
		for i, r := range known {
			now := rendered(t, a, testParams(t, r.Newest))
			if i == 0 {
				compare("oldest.yaml", now)
			} else {
				diff, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
					A: difflib.SplitLines(before), B: difflib.SplitLines(now), FromFile: known[i-1].Newest, ToFile: r.Newest, Context: 1,
				})
				if err != nil {
					t.Fatal(err)
				}
				changes += diff
			}
			before = now
		}
		if changes != "" {
			compare("newest.yaml", before)
			compare("changes.diff", changes)
		}
		compare("dual-stack.yaml", rendered(t, a, dual))
	}
}

// TestAddonFacts: each line of a manifest that some versions lack is in those
// of its range only, and each fact that a manifest asks for is one.
func TestAddonFacts(t *testing.T) {
	const last = 99
	for _, c := range []struct {
		addon    Addon
		text     string
		from, to int // minors
	}{
		{CoreDNS, "kubernetes.io/name: KubeDNS\n", 19, 20},
		{CoreDNS, "kubernetes.io/name: CoreDNS\n", 21, last},
		{CoreDNS, "node-role.kubernetes.io/master\", effect: NoSchedule", 19, 25},
		{CoreDNS, "node-role.kubernetes.io/control-plane\", effect: NoSchedule", 20, last},
		{CoreDNS, "resources: [nodes], verbs: [get]", 19, 27},
		{CoreDNS, "resources: [endpointslices], verbs: [list, watch]", 22, last},
		{CoreDNS, "podAntiAffinity:", 25, last},
		{CoreDNS, "drop: [all]", 19, 28},
		{CoreDNS, "drop: [ALL]", 29, last},
		{CoreDNS, "\n        cache 30\n", 19, 31},
		{CoreDNS, "\n        cache 30 {\n           disable success cluster.local\n           disable denial cluster.local\n        }\n", 32, last},
		{CoreDNS, "port: 8080, scheme", 19, 33},
		{CoreDNS, "port: 8181, scheme", 19, 33},
		{CoreDNS, "{name: liveness-probe, protocol: TCP, containerPort: 8080}", 34, last},
		{CoreDNS, "{name: readiness-probe, protocol: TCP, containerPort: 8181}", 34, last},
		{CoreDNS, "path: /health, port: liveness-probe,", 34, last},
		{CoreDNS, "path: /ready, port: readiness-probe,", 34, last},
		{KubeProxy, "{key: CriticalAddonsOnly, operator: Exists}", 19, 21},
	} {
		for _, r := range images.Known() {
			for _, v := range []string{r.Oldest, r.Newest} {
				p := testParams(t, v)
				has := strings.Contains(rendered(t, c.addon, p), c.text)
				if m := p.Release.Minor(); has != (c.from <= m && m <= c.to) {
					t.Errorf("%s of %s: it holds %q: %t", c.addon, v, c.text, has)
				}
			}
		}
	}
	for _, a := range []Addon{CoreDNS, KubeProxy, Flannel} {
		text, err := addons.ReadFile("addons/" + string(a) + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`has "([^"]*)"`).FindAllSubmatch(text, -1) {
			if !slices.ContainsFunc(images.Known(), func(r images.Range) bool {
				return testParams(t, r.Newest).Release.Has(images.Fact(m[1]))
			}) {
				t.Errorf("%s asks for %q, which is a fact of no version", a, m[1])
			}
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
