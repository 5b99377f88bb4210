package firstboot

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// stepNodeReady waits until the cluster says that this node is Ready, with the
// kubelet of this image.
func stepNodeReady() Step {
	return Step{
		Name: "node-ready",
		Done: func(ctx context.Context, r *Run) (bool, error) {
			_, n, err := thisNode(ctx, r)
			if err != nil {
				return false, err
			}
			if why := notReady(n, r.Baked.Release.Version); why != "" {
				return false, Retry{After: 250 * time.Millisecond, Why: why}
			}
			return true, nil
		},
		Do: func(context.Context, *Run) error { return nil },
	}
}

// notReady says why a node is not Ready at a version; "" means that it is.
func notReady(n *corev1.Node, version string) string {
	if v := n.Status.NodeInfo.KubeletVersion; v != version {
		return fmt.Sprintf("node %s runs kubelet %s still, not %s", n.Name, v, version)
	}
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return ""
		}
		return fmt.Sprintf("node %s is not Ready: %s", n.Name, c.Message)
	}
	return fmt.Sprintf("node %s has not said yet whether it is Ready", n.Name)
}
