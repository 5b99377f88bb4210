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
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release, r.Clock(), file)
			return done, err
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, r.Host, r.Node, r.Baked.Release, r.Clock(), file)
		},
	}
}

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() converge.Step {
	return converge.Step{
		Name: "kubeconfig",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release, r.Clock(), kubeconfigsOf(r)...)
			return done, err
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, r.Host, r.Node, r.Baked.Release, r.Clock(), kubeconfigsOf(r)...)
		},
	}
}

// kubeconfigsOf are the kubeconfigs that a node makes itself; none named is
// all. A kubelet that joins has its own from the TLS bootstrap.
func kubeconfigsOf(r *node.Machine) []string {
	if r.Node.Role.Joins() {
		return []string{"admin.conf", "controller-manager.conf", "scheduler.conf"}
	}
	return nil
}
