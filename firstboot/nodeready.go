package firstboot

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// stepNodeReady waits until the cluster says that this node is Ready, with the
// kubelet of this image.
func stepNodeReady() Step {
	return Step{
		Name: "node-ready",
		Done: func(ctx context.Context, r *Run) (bool, error) {
			c, n, err := thisNode(ctx, r)
			if err != nil {
				return false, err
			}
			if why := notReady(n, r.Baked.Release.Version); why != "" {
				return false, Retry{After: 10 * time.Second, Why: why, Wake: func(ctx context.Context) { watchNode(ctx, c, n) }}
			}
			return true, nil
		},
		Do: func(context.Context, *Run) error { return nil },
	}
}

// watchNode returns when n changes in the cluster, or ctx ends.
func watchNode(ctx context.Context, c kubernetes.Interface, n *corev1.Node) {
	w, err := c.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, n.Name).String(),
		ResourceVersion: n.ResourceVersion,
	})
	if err != nil {
		select { // the API server is away: look again soon
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return
	}
	defer w.Stop()
	select {
	case <-ctx.Done():
	case <-w.ResultChan():
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
