package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepKubeconfigKubelet makes the kubelet's kubeconfig (kubeadm init phase
// kubeconfig kubelet), which is all that a kubelet waits for besides the
// authority.
func stepKubeconfigKubelet() converge.Step {
	const file = "kubelet.conf"
	return converge.Step{
		Name: "kubeconfig/kubelet",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(m.Host, m.Node, m.Baked.Release, m.Clock(), file)
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, m.Host, m.Node, m.Baked.Release, m.Clock(), file)
		},
	}
}

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() converge.Step {
	return converge.Step{
		Name: "kubeconfig",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(m.Host, m.Node, m.Baked.Release, m.Clock(), kubeconfigsOf(m)...)
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, m.Host, m.Node, m.Baked.Release, m.Clock(), kubeconfigsOf(m)...)
		},
	}
}

// kubeconfigsOf are the kubeconfigs that a node makes itself; none named is
// all. A kubelet that joins has its own from the TLS bootstrap.
func kubeconfigsOf(m *node.Machine) []string {
	if m.Node.Role.Joins() {
		return []string{"admin.conf", "controller-manager.conf", "scheduler.conf"}
	}
	return nil
}
