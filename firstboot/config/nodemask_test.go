package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// ipv6Pods is what kubeadm makes of IPv6 pod subnets: the node's mask that
// v1.19.12 sets, and whether v1.20.15 takes the subnet. The rows are compared
// with real kubeadm where KBUILD_ORACLE is set.
var ipv6Pods = []struct {
	bits, mask int
	later      bool
}{
	{32, 48, false}, {40, 56, false}, {47, 56, false}, {48, 64, true}, {56, 72, true}, {63, 72, true}, {64, 80, true},
	{65, 80, false}, {72, 88, false}, {80, 96, false}, {88, 104, false}, {96, 112, false}, {104, 120, false},
	{111, 120, false}, {112, 120, false}, {113, 113, false}, {124, 124, false},
}

func podSubnetConfig(bits int, version string) string {
	return fmt.Sprintf("apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: \"2001:db8::5\"}\nnodeRegistration: {criSocket: %s}\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: %s\nnetworking: {podSubnet: \"fd00:10::/%d\", serviceSubnet: \"fd00:96::/112\"}\n", CRISocket, version, bits)
}

func TestIPv6PodSubnets(t *testing.T) {
	for _, c := range ipv6Pods {
		for _, version := range []string{"v1.19.12", "v1.20.15"} {
			takes := c.later || version == "v1.19.12"
			b := images.Baked{Release: release(t, version), CNI: "flannel", PodCIDR: "10.244.0.0/16"}
			n, _, err := Load(b, machine(), Document{Source: "test", Data: []byte(podSubnetConfig(c.bits, version))})
			if (err == nil) != takes {
				t.Errorf("%s /%d: %v", version, c.bits, err)
			}
			if err != nil || version != "v1.19.12" {
				continue
			}
			prefixes, err := prefixesOf(n.Cluster.Networking.PodSubnet)
			if err != nil || NodeMask(prefixes[0]) != c.mask {
				t.Errorf("/%d: %v, %v; want %d", c.bits, prefixes, err, c.mask)
			}
		}
	}
}

// A subnet that one node takes whole is said to be so; a larger IPv4 network
// than kubeadm v1.20 takes is one that v1.19 takes.
func TestPodSubnetSizes(t *testing.T) {
	_, warnings, err := load(t, podSubnetConfig(113, "v1.19.12"))
	if err != nil || !strings.Contains(strings.Join(warnings, " "), "what one node gets (/113)") {
		t.Errorf("%v %q", err, warnings)
	}
	text := short + "podSubnet: 20.0.0.0/7\n"
	if _, _, err := load(t, text); err != nil {
		t.Error(err)
	}
	later := images.Baked{Release: release(t, "v1.20.15"), CNI: "none"}
	if _, _, err := Load(later, machine(), Document{Source: "test", Data: []byte(text)}); err == nil {
		t.Error("v1.20.15 takes an IPv4 subnet of more than 2^16 nodes")
	}
}

// Real kubeadm says the same as the table.
func TestIPv6PodSubnetsOracle(t *testing.T) {
	sets := regexp.MustCompile(`--node-cidr-mask-size=(\d+)`)
	for _, version := range []string{"v1.19.12", "v1.20.15"} {
		kubeadm := oracle(t, version)
		for _, c := range ipv6Pods {
			root := t.TempDir()
			if err := os.WriteFile(filepath.Join(root, "kubeadm.yaml"), []byte(podSubnetConfig(c.bits, version)), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(kubeadm, "init", "phase", "control-plane", "controller-manager", "--rootfs", root, "--config", "/kubeadm.yaml").CombinedOutput()
			if takes := c.later || version == "v1.19.12"; (err == nil) != takes {
				t.Errorf("kubeadm %s, /%d: %v\n%s", version, c.bits, err, out)
			}
			if err != nil || version != "v1.19.12" {
				continue
			}
			manifest, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/manifests/kube-controller-manager.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			if m := sets.FindSubmatch(manifest); m == nil || string(m[1]) != fmt.Sprint(c.mask) {
				t.Errorf("kubeadm %s, /%d: %q, want %d", version, c.bits, m, c.mask)
			}
		}
	}
}

// oracle is the path of real kubeadm.
func oracle(t *testing.T, version string) string {
	t.Helper()
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
		}
		t.Skip("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries: run `make oracle`")
	}
	file := filepath.Join(dir, "kubeadm-"+version)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("cannot ask real kubeadm: %v; `make oracle` compiles it", err)
	}
	return file
}
