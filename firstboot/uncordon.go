package firstboot

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// Uncordon lets pods come to this node again that kbuild has cordoned in this
// boot, if its machine has not gone down for that when d has passed: whoever was
// to see to it is gone. It waits for an API server that does not answer.
func Uncordon(ctx context.Context, r *Run, d time.Duration) error {
	if err := loadReset(r, ResetOptions{}); err != nil {
		return err
	}
	if r.Node == nil {
		return outcome.Refuse("cannot uncordon this machine: it is no node")
	}
	return uncordon(ctx, r, d)
}

func uncordon(ctx context.Context, r *Run, d time.Duration) error {
	boot, err := r.Host.BootID()
	if err != nil {
		return err
	}
	for wait := (outcome.Retry{After: d}); ; {
		if pause(ctx, wait) != nil {
			return context.Cause(ctx)
		}
		err := nodeDo(ctx, r, func(n *corev1.Node) {
			if n.Annotations[cluster.CordonedAnnotation] == boot {
				cluster.Uncordon(n)
			}
		})
		again, ok := errors.AsType[outcome.Retry](err)
		if !ok {
			return err
		}
		wait = again
	}
}
