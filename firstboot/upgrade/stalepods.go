package upgrade

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// StalePodsStep removes the pods of this node that belong to another image: of
// an image that only the other slot holds, in the version that this one does.
// Whoever owns them makes them anew. They cannot start here, and a DaemonSet
// whose pods must be of their node's version (kube-proxy) waits for this.
func StalePodsStep() converge.Step {
	return converge.Step{
		Name: "stale-pods",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			_, pods, err := stalePods(ctx, m)
			return err == nil && len(pods) == 0, cluster.RetryIfTemporary(err)
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			begun, err := m.BootBegan()
			if err != nil {
				return err
			}
			c, pods, err := stalePods(ctx, m)
			for _, p := range pods {
				if err != nil {
					break
				}
				err = m.Host.Do("delete pod "+p.Name, func() error {
					o := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
					if !runs(p, begun) {
						// The kubelet is trying to pull its image, for a minute where there is no
						// network, and would say only then that it is gone.
						o.GracePeriodSeconds = new(int64(0))
					}
					return c.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, o)
				})
				if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
					err = nil
				}
			}
			return cluster.RetryIfTemporary(err)
		},
	}
}

// runs says whether a container of the pod was started in the boot that began
// then. That it ran before is what the kubelet says until it looks again.
func runs(p corev1.Pod, begun time.Time) bool {
	return slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil && c.State.Running.StartedAt.After(begun)
	})
}

// stalePods are those, made before this boot: one that was made since is what
// its owner wants, and is for its owner to mend.
func stalePods(ctx context.Context, m *node.Machine) (kubernetes.Interface, []corev1.Pod, error) {
	c, _, err := m.AsNode()
	if err != nil {
		return nil, nil, err
	}
	list, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + m.Node.Init.NodeRegistration.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list this node's pods: %w", err)
	}
	begun, err := m.BootBegan()
	if err != nil {
		return nil, nil, err
	}
	var stale []corev1.Pod
	for _, p := range list.Items {
		owner := metav1.GetControllerOf(&p)
		if owner == nil || owner.Kind == "Node" || p.DeletionTimestamp != nil || !p.CreationTimestamp.Time.Before(begun) {
			continue
		}
		if slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return otherSlots(m.Baked.Images, c.Image) }) {
			stale = append(stale, p)
		}
	}
	return c, stale, nil
}

// otherSlots says whether image is not among those that are baked, but one of
// its name with another tag is.
func otherSlots(baked []string, image string) bool {
	if slices.Contains(baked, image) {
		return false
	}
	name, _ := images.SplitName(image)
	return slices.ContainsFunc(baked, func(b string) bool {
		other, _ := images.SplitName(b)
		return other == name
	})
}
