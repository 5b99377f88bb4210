package firstboot

import (
	"context"
	"time"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// stepCerts makes the cluster's keys and certificates (kubeadm init phase
// certs all).
func stepCerts() Step {
	return Step{
		Name: "certs",
		Done: func(_ context.Context, r *Run) (bool, error) {
			return pki.Complete(r.Host, r.Node, certTime(r))
		},
		Do: func(ctx context.Context, r *Run) error {
			return pki.Ensure(ctx, r.Host, r.Node, certTime(r))
		},
	}
}

// certTime is the time by which certificates are made and judged: the clock,
// but never a time before the image existed, which only a wrong clock can
// show.
func certTime(r *Run) time.Time {
	now := r.Host.Now()
	if now.Before(r.Baked.BuildTime) {
		return r.Baked.BuildTime
	}
	return now
}
