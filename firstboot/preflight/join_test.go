package preflight

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
)

// newJoiner is newBench for a machine that is to join.
func newJoiner(t *testing.T, role string) *bench {
	t.Helper()
	b := newBench(t, "v1.19.12", "")
	links := []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}}}
	n, _, err := config.Load(b.Baked, config.Machine{Hostname: "n1", Links: links}, config.Document{Source: "test", Data: []byte(
		"apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: " + role + "\nendpoint: 192.0.2.1:6443\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [\"sha256:" + strings.Repeat("ab", 32) + "\"]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if role == "control-plane" {
		n = n.In(config.Cluster{Cluster: b.Node.Cluster, Kubelet: b.Node.Kubelet, KubeProxy: b.Node.KubeProxy})
	}
	b.Node = n
	return b
}

// A machine that joins is looked at twice: before its cluster is known, and for
// a control plane again afterwards.
func TestJoin(t *testing.T) {
	for _, c := range []struct {
		role   string
		checks func(*node.Machine) []Check
		broken func(b *bench)
		want   string // the check that fails; "" is none
	}{
		{"worker", Join, func(*bench) {}, ""},
		{"control-plane", Join, func(*bench) {}, ""},
		{"control-plane", JoinControlPlane, func(*bench) {}, ""},
		{"worker", Join, func(b *bench) { b.Host.Probe.CPUs = func() int { return 1 } }, ""},
		{"worker", Join, busy(6443), ""},
		{"worker", Join, busy(10250), "Port-10250"},
		{"worker", Join, func(b *bench) { b.write(t, "/etc/kubernetes/kubelet.conf", "x") }, "FileAvailable--etc-kubernetes-kubelet.conf"},
		{"worker", Join, func(b *bench) { b.write(t, "/etc/kubernetes/bootstrap-kubelet.conf", "x") }, "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf"},
		{"worker", Join, func(b *bench) {
			b.write(t, "/etc/kubernetes/bootstrap-kubelet.conf", "x")
			b.write(t, "/var/lib/kbuild/cluster.json", "{}")
		}, ""},
		{"worker", Join, func(b *bench) { b.write(t, "/etc/kubernetes/pki/ca.crt", "x") }, "FileAvailable--etc-kubernetes-pki-ca.crt"},
		{"control-plane", Join, func(b *bench) { b.write(t, "/etc/kubernetes/pki/ca.crt", "x") }, ""},
		{"worker", Join, func(b *bench) { b.write(t, "/etc/kubernetes/manifests/x.yaml", "x") }, "DirAvailable--etc-kubernetes-manifests"},
		{"control-plane", JoinControlPlane, func(b *bench) { b.Host.Probe.CPUs = func() int { return 1 } }, "NumCPU"},
		{"control-plane", JoinControlPlane, busy(2380), "Port-2380"},
		{"control-plane", JoinControlPlane, func(b *bench) { b.Baked.Images = nil }, "ImagePull"},
	} {
		b := newJoiner(t, c.role)
		c.broken(b)
		got := names(Run(context.Background(), c.checks(b.Machine), nil).Errors)
		if c.want == "" && len(got) > 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %q, want %q", c.role, got, c.want)
		}
	}
}
