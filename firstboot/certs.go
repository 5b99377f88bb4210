package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepCertsCA makes the cluster's authority (kubeadm init phase certs ca), or
// puts the identity in place that was made beforehand. It
// comes before the other certificates because the kubelet can start with it,
// and a kubelet takes seconds to start.
func stepCertsCA() converge.Step {
	return converge.Step{
		Name: "certs/ca",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			given, err := pki.HasProvided(r.Host, r.Node)
			if err != nil || !given {
				return false, err
			}
			done, err := pki.HasCA(r.Host, r.Node, r.Clock())
			return done, err
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			if err := pki.PlaceProvided(r.Host, r.Node); err != nil {
				return err
			}
			return pki.EnsureCA(ctx, r.Host, r.Node, r.Clock())
		},
	}
}

// stepCerts makes the cluster's keys and certificates (kubeadm init phase
// certs all). Keys take about a second of both processors, so they are made
// beside the images step and while the kubelet starts.
func stepCerts() converge.Step {
	return converge.Step{
		Name: "certs",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			done, err := pki.Complete(r.Host, r.Node, r.Clock())
			return done, err
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			return pki.Ensure(ctx, r.Host, r.Node, r.Clock())
		},
	}
}
