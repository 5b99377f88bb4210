package upgrade

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// UncordonStep lets pods come to this node again that left it for a swap, once
// it is known to be healthy: whoever waits for that need wait for nothing else.
// Whatever image boots, the new one or the old, does it; a node that was
// cordoned in this very boot has still to go down.
func UncordonStep() converge.Step {
	return converge.Step{
		Name: "uncordon",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			_, n, err := m.NodeObject(ctx)
			if err != nil || n.Annotations[cluster.CordonedAnnotation] == "" {
				return err == nil, err
			}
			boot, err := m.Host.BootID()
			return err == nil && n.Annotations[cluster.CordonedAnnotation] == boot, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return m.ChangeNode(ctx, cluster.Uncordon)
		},
	}
}

// Uncordon lets pods come to this node again that kbuild has cordoned in this
// boot, if its machine has not gone down for that when d has passed: whoever was
// to see to it is gone. It waits for an API server that does not answer.
func Uncordon(ctx context.Context, m *node.Machine, d time.Duration) error {
	n, is, err := node.Load(m.Host)
	if err != nil {
		return err
	}
	m.Node = n
	if !is {
		return outcome.Refuse("cannot uncordon this machine: it is no node")
	}
	boot, err := m.Host.BootID()
	if err != nil {
		return err
	}
	return converge.Retry(ctx, d, func() error {
		return m.ChangeNode(ctx, func(n *corev1.Node) {
			if n.Annotations[cluster.CordonedAnnotation] == boot {
				cluster.Uncordon(n)
			}
		})
	})
}
