package firstboot

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// stepUpgradeCluster is what the first control plane of a new version does for
// the whole cluster (kubeadm upgrade apply), on one that has joined; on the
// first control plane the steps upload-config, bootstrap-token and addon do it.
// The version in kubeadm-config is written last: while it is the old one, the
// next control plane that boots goes on.
func stepUpgradeCluster() Step {
	return Step{
		Name:  "upgrade-cluster",
		Needs: []string{"wait-control-plane", "update-status"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			edits, err := editsCluster(ctx, r)
			return !edits, err
		},
		Do: func(ctx context.Context, r *Run) error { return cluster.RetryIfTemporary(upgradeCluster(ctx, r)) },
	}
}

func upgradeCluster(ctx context.Context, r *Run) error {
	c, addons, baked, err := adminAddons(r)
	if err != nil {
		return err
	}
	// The pod network and the baked manifests are this image's business only
	// where an image of ours has brought them.
	have, err := cluster.Applied(ctx, c)
	if err != nil {
		return err
	}
	ours := func(p part) bool {
		return p.name == "addon.kube-proxy" || p.name == "addon.coredns" || have[p.name] != ""
	}
	addons = slices.DeleteFunc(addons, func(p part) bool { return !ours(p) })
	baked = slices.DeleteFunc(baked, func(p part) bool { return !ours(p) })
	kubelet, err := kubeletConfigPart(r, c)
	if err != nil {
		return err
	}
	early := append(addons, kubelet, objectsPart(c, "bootstrap-token.rules", joinRules(), nil))
	if err := applyMissing(ctx, c, early); err != nil {
		return err
	}
	if err := applyInOrder(ctx, c, baked); err != nil {
		return err
	}
	version, err := kubeadmConfigPart(r, c)
	if err != nil {
		return err
	}
	return version.record(ctx, c)
}

// editsCluster says whether it is for this node to make the cluster what this
// image wants. While a cluster moves from one version to the next, its control
// planes are of both: the newer ones lead, and an older one that boots leaves
// what they have made alone, unless none of them is left. A control plane that
// has joined does it only when it is the first of its version.
func editsCluster(ctx context.Context, r *Run) (bool, error) {
	c, _, err := asAdmin(r)
	if err != nil {
		return false, err
	}
	version, err := clusterVersion(ctx, c)
	if err != nil {
		return false, cluster.RetryIfTemporary(err)
	}
	own, joins := r.Baked.Release, r.Node.Role.Joins()
	switch {
	case version == "" || version == own.Version:
		return !joins, nil
	case own.Before(version):
		if joins {
			return false, nil
		}
		newer, err := newerControlPlane(ctx, r, c)
		return !newer, cluster.RetryIfTemporary(err)
	}
	return true, nil
}

// whereEdits is step s for a node that may not be the one to do it.
func whereEdits(s Step) Step {
	done := s.Done
	s.Done = func(ctx context.Context, r *Run) (bool, error) {
		edits, err := editsCluster(ctx, r)
		if err != nil || !edits {
			return err == nil, err
		}
		return done(ctx, r)
	}
	return s
}

// clusterVersion is the Kubernetes version that the cluster keeps in
// kubeadm-config; empty where it keeps none yet.
func clusterVersion(ctx context.Context, c kubernetes.Interface) (string, error) {
	cm, err := readKubeadmConfig(ctx, c)
	if err != nil {
		return "", err
	}
	version, err := config.VersionOf([]byte(cm.Data["ClusterConfiguration"]))
	if err != nil {
		return "", fmt.Errorf("cannot read ConfigMap %s: %w; correct it with kubectl -n kube-system edit configmap %[1]s", kubeadmConfig, err)
	}
	return version, nil
}

// newerControlPlane says whether another node with an API server is of a later
// version than this image.
func newerControlPlane(ctx context.Context, r *Run, c kubernetes.Interface) (bool, error) {
	pods, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=kube-apiserver,tier=control-plane"})
	if err != nil {
		return false, fmt.Errorf("cannot list the pods of the API servers: %w", err)
	}
	for _, p := range pods.Items {
		if p.Spec.NodeName == r.Node.Init.NodeRegistration.Name || len(p.Spec.Containers) == 0 {
			continue
		}
		_, tag := splitImage(p.Spec.Containers[0].Image)
		if r.Baked.Release.Before(tag) {
			return true, nil
		}
	}
	return false, nil
}

// stepUncordon lets pods come to this node again that left it for a swap, once
// it is known to be healthy: whoever waits for that need wait for nothing else.
// Whatever image boots, the new one or the old, does it; a node that was
// cordoned in this very boot has still to go down.
func stepUncordon() Step {
	return Step{
		Name:  "uncordon",
		Needs: []string{"node-ready", "health"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			_, n, err := thisNode(ctx, r)
			if err != nil || n.Annotations[cluster.CordonedAnnotation] == "" {
				return err == nil, err
			}
			boot, err := r.Host.BootID()
			return err == nil && n.Annotations[cluster.CordonedAnnotation] == boot, err
		},
		Do: func(ctx context.Context, r *Run) error {
			return nodeDo(ctx, r, cluster.Uncordon)
		},
	}
}

// stepStalePods removes the pods of this node that belong to another image: of
// an image that only the other slot holds, in the version that this one does.
// Whoever owns them makes them anew. They cannot start here, and a DaemonSet
// whose pods must be of their node's version (kube-proxy) waits for this.
func stepStalePods() Step {
	return Step{
		Name:  "stale-pods",
		Needs: []string{"node-ready"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			_, pods, err := stalePods(ctx, r)
			return err == nil && len(pods) == 0, cluster.RetryIfTemporary(err)
		},
		Do: func(ctx context.Context, r *Run) error {
			begun, err := bootBegan(r)
			if err != nil {
				return err
			}
			c, pods, err := stalePods(ctx, r)
			for _, p := range pods {
				if err != nil {
					break
				}
				err = r.Host.Do("delete pod "+p.Name, func() error {
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

// bootBegan is when this boot began: the hostname step wrote this file then,
// before the kubelet came.
func bootBegan(r *Run) (time.Time, error) {
	st, err := r.Host.Root.Stat(strings.TrimPrefix(hostsFile, "/"))
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot tell when this boot began: %w", err)
	}
	return st.ModTime(), nil
}

// stalePods are those, made before this boot: one that was made since is what
// its owner wants, and is for its owner to mend.
func stalePods(ctx context.Context, r *Run) (kubernetes.Interface, []corev1.Pod, error) {
	c, _, err := asNode(r)
	if err != nil {
		return nil, nil, err
	}
	list, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + r.Node.Init.NodeRegistration.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list this node's pods: %w", err)
	}
	begun, err := bootBegan(r)
	if err != nil {
		return nil, nil, err
	}
	var stale []corev1.Pod
	for _, p := range list.Items {
		owner := metav1.GetControllerOf(&p)
		if owner == nil || owner.Kind == "Node" || p.DeletionTimestamp != nil || !p.CreationTimestamp.Time.Before(begun) {
			continue
		}
		if slices.ContainsFunc(p.Spec.Containers, func(c corev1.Container) bool { return otherSlots(r.Baked.Images, c.Image) }) {
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
	name, _ := splitImage(image)
	return slices.ContainsFunc(baked, func(b string) bool {
		other, _ := splitImage(b)
		return other == name
	})
}

// splitImage splits an image's name from its tag, which may be missing.
func splitImage(image string) (name, tag string) {
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i], image[i+1:]
	}
	return image, ""
}
