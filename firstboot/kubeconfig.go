package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() Step {
	return Step{
		Name:  "kubeconfig",
		Needs: []string{"certs"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			done, err := pki.KubeconfigsComplete(r.Host, r.Node, r.Baked.Release, certClock(r))
			return done, whenClockIsRight(err)
		},
		Do: func(ctx context.Context, r *Run) error {
			return whenClockIsRight(pki.EnsureKubeconfigs(ctx, r.Host, r.Node, r.Baked.Release, certClock(r)))
		},
	}
}
