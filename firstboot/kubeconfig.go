package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepKubeconfigKubelet makes the kubelet's kubeconfig (kubeadm init phase
// kubeconfig kubelet), which is all that a kubelet waits for besides the
// authority.
func stepKubeconfigKubelet() Step {
	const file = "kubelet.conf"
	return Step{
		Name:  "kubeconfig/kubelet",
		Needs: []string{"certs/ca"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			done, err := pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release, certClock(r), file)
			return done, err
		},
		Do: func(ctx context.Context, r *Run) error {
			return pki.EnsureKubeconfigs(ctx, r.Host, r.Node, r.Baked.Release, certClock(r), file)
		},
	}
}

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() Step {
	return Step{
		Name:  "kubeconfig",
		Needs: []string{"certs", "kubeconfig/kubelet"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			done, err := pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release, certClock(r), kubeconfigsOf(r)...)
			return done, err
		},
		Do: func(ctx context.Context, r *Run) error {
			return pki.EnsureKubeconfigs(ctx, r.Host, r.Node, r.Baked.Release, certClock(r), kubeconfigsOf(r)...)
		},
	}
}

// kubeconfigsOf are the kubeconfigs that a node makes itself; none named is
// all. A kubelet that joins has its own from the TLS bootstrap.
func kubeconfigsOf(r *Run) []string {
	if r.Node.Role.Joins() {
		return []string{"admin.conf", "controller-manager.conf", "scheduler.conf"}
	}
	return nil
}
