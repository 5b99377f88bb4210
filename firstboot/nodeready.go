package firstboot

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// stepNodeReady waits until the cluster says that this node is Ready, with the
// kubelet of this image.
func stepNodeReady() converge.Step {
	return converge.Step{
		Name: "node-ready",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			c, n, err := m.NodeObject(ctx)
			if err != nil {
				return false, err
			}
			why := notReady(n, m.Baked.Release.Version)
			if why == "" {
				return true, nil
			}
			again := outcome.Retry{After: 10 * time.Second, Why: why, Wake: func(ctx context.Context) { watchNode(ctx, c, n) }}
			if m.Baked.Release.Has(images.FactSlowReady) && waitsForCSINode(n) && !m.Host.Exists(kubeletNudged) {
				if _, err := c.StorageV1().CSINodes().Get(ctx, n.Name, metav1.GetOptions{}); err == nil {
					return false, nil
				}
				again.After = 200 * time.Millisecond // the node does not change when it is made
			}
			return false, again
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			// Once: what it says afterwards is the truth.
			if err := m.Host.WriteFile(kubeletNudged, nil, 0o600); err != nil {
				return err
			}
			return kubelet.Restart(ctx, m)
		},
	}
}

// kubeletNudged says that the kubelet was restarted to tell the cluster that it
// is Ready. It is gone after a reboot.
const kubeletNudged = "/run/kbuild/kubelet-nudged"

// waitsForCSINode says whether that is the one thing that keeps a node from
// being Ready. A kubelet registers its node like this, because its CSINode can
// be made only afterwards; that it is made, an old one says when its next ten
// seconds are over, or when it starts. kubeadm, too, restarts it about then.
func waitsForCSINode(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Message == "CSINode is not yet initialized"
	})
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
