package preflight

import (
	"context"
	"net"
	"net/netip"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
)

// Join returns the checks of a machine that joins a cluster, before the cluster
// is known (kubeadm: RunJoinNodeChecks).
func Join(on *node.Machine) []Check {
	m, n := machine{on}, on.Node
	checks := append(m.any(),
		m.empty("/etc/kubernetes/manifests"),
		m.absent(node.KubeletKubeconfig))
	// One that has found its cluster already, in an earlier image, has its own.
	if !m.Host.Exists(node.ClusterFile) {
		checks = append(checks, m.absent(node.BootstrapKubeconfig))
	}
	checks = append(checks, m.common()...)
	if n.Role == config.RoleWorker {
		checks = append(checks, m.absent(n.Join.CACertPath))
	}
	t := n.Join.Discovery.BootstrapToken
	if t == nil {
		return checks
	}
	host, _, err := net.SplitHostPort(t.APIServerEndpoint)
	if err != nil {
		return checks
	}
	checks = append(checks, Check{"HTTPProxy", func(_ context.Context, f *Findings) { m.proxyTo(f, host) }})
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().Is6() {
		checks = append(checks, m.ipv6()...)
	}
	return checks
}

// JoinControlPlane returns those of a machine that becomes a control plane of a
// cluster that is known (kubeadm: RunInitNodeChecks for a further one).
func JoinControlPlane(on *node.Machine) []Check {
	m := machine{on}
	return append(m.controlPlane(), Check{"ImagePull", m.images})
}
