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
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			given, err := pki.HasProvided(m.Host, m.Node)
			if err != nil || !given {
				return false, err
			}
			done, err := pki.HasCA(m.Host, m.Node, m.Release(), m.Clock())
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			if err := pki.PlaceProvided(m.Host, m.Node); err != nil {
				return err
			}
			return pki.EnsureCA(ctx, m.Host, m.Node, m.Release(), m.Clock())
		},
	}
}

// stepCerts makes the cluster's keys and certificates (kubeadm init phase
// certs all). Keys take about a second of both processors, so they are made
// beside the images step and while the kubelet starts.
func stepCerts() converge.Step {
	return converge.Step{
		Name: "certs",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			done, err := pki.Complete(m.Host, m.Node, m.Release(), m.Clock())
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return pki.Ensure(ctx, m.Host, m.Node, m.Release(), m.Clock())
		},
	}
}
