package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() Step {
	return Step{
		Name: "kubeconfig",
		Done: func(_ context.Context, r *Run) (bool, error) {
			return pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release)
		},
		Do: func(_ context.Context, r *Run) error {
			return pki.EnsureKubeconfigs(r.Host, r.Node, r.Baked.Release, certTime(r))
		},
	}
}
