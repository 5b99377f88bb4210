package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepCertsCA makes the cluster's authority (kubeadm init phase certs ca), or
// puts the identity in place that was made beforehand. It
// comes before the other certificates because the kubelet can start with it,
// and a kubelet takes seconds to start.
func stepCertsCA() Step {
	return Step{
		Name:  "certs/ca",
		Needs: []string{"preflight"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			given, err := pki.HasGiven(r.Host, r.Node)
			if err != nil || !given {
				return false, err
			}
			done, err := pki.HasCA(r.Host, r.Node, certClock(r))
			return done, err
		},
		Do: func(ctx context.Context, r *Run) error {
			if err := pki.PlaceGiven(r.Host, r.Node); err != nil {
				return err
			}
			return pki.EnsureCA(ctx, r.Host, r.Node, certClock(r))
		},
	}
}

// stepCerts makes the cluster's keys and certificates (kubeadm init phase
// certs all). Keys take about a second of both processors, so they are made
// beside the images step and while the kubelet starts.
func stepCerts() Step {
	return Step{
		Name:  "certs",
		Needs: []string{"certs/ca"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			done, err := pki.Complete(r.Host, r.Node, certClock(r))
			return done, err
		},
		Do: func(ctx context.Context, r *Run) error {
			return pki.Ensure(ctx, r.Host, r.Node, certClock(r))
		},
	}
}

func certClock(r *Run) pki.Clock {
	return pki.Clock{Now: r.Host.Now(), Built: r.Baked.BuildTime}
}
