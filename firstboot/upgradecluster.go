package firstboot

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// stepUpgradeCluster is what the first control plane of a new version does for
// the whole cluster (kubeadm upgrade apply), on one that has joined; on the
// first control plane the steps upload-config, bootstrap-token and addon do it.
// The version in kubeadm-config is written last: while it is the old one, the
// next control plane that boots goes on.
func stepUpgradeCluster() converge.Step {
	return converge.Step{
		Name: "upgrade-cluster",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			edits, err := leadsCluster(ctx, m)
			return !edits, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return cluster.RetryIfTemporary(upgradeCluster(ctx, m))
		},
	}
}

func upgradeCluster(ctx context.Context, m *node.Machine) error {
	c, addons, baked, err := adminAddons(m)
	if err != nil {
		return err
	}
	have, err := cluster.Applied(ctx, c)
	if err != nil {
		return err
	}
	if addons, err = deployed(ctx, m, c, have, addons); err != nil {
		return err
	}
	// The baked manifests are this image's business only where an image of ours
	// has brought them.
	baked = slices.DeleteFunc(baked, func(p cluster.Part) bool { return have[p.Name] == "" })
	kubelet, err := kubeletConfigPart(m, c)
	if err != nil {
		return err
	}
	if err := cluster.ApplyMissing(ctx, c, m.Host.Log, append(addons, kubelet, joinRulesPart(m, c))); err != nil {
		return err
	}
	if err := cluster.ApplyInOrder(ctx, c, m.Host.Log, baked); err != nil {
		return err
	}
	version, err := kubeadmConfigPart(m, c)
	if err != nil {
		return err
	}
	return version.Put(ctx, c, m.Host.Log)
}

// deployed are those of the add-ons that the cluster has: of kubeadm's, those
// whose ConfigMap is there, as kubeadm upgrade goes by; any other, such as the
// pod network, where an image of ours has brought it.
func deployed(ctx context.Context, m *node.Machine, c kubernetes.Interface, have map[string]string, addons []cluster.Part) ([]cluster.Part, error) {
	configMaps := map[string]string{"addon.kube-proxy": "kube-proxy", "addon.coredns": "coredns"}
	var out []cluster.Part
	for _, p := range addons {
		if have[p.Name] != "" {
			out = append(out, p)
			continue
		}
		name := configMaps[p.Name]
		if name == "" {
			continue
		}
		_, err := c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			out = append(out, p)
		case apierrors.IsNotFound(err):
			m.Host.Log.Warn(p.Name + " is left off: the cluster has no ConfigMap kube-system/" + name + ", so its administrators do without")
		default:
			return nil, fmt.Errorf("cannot read ConfigMap %s: %w", name, err)
		}
	}
	return out, nil
}

// leadsCluster says whether it is for this node to make the cluster what this
// image wants. While a cluster moves from one version to the next, its control
// planes are of both: the newer ones lead, and an older one that boots leaves
// what they have made alone, unless none of them is left. A control plane that
// has joined does it only when it is the first of its version.
func leadsCluster(ctx context.Context, m *node.Machine) (bool, error) {
	c, _, err := m.AsAdmin()
	if err != nil {
		return false, err
	}
	version, err := clusterVersion(ctx, c)
	if err != nil {
		return false, cluster.RetryIfTemporary(err)
	}
	own, joins := m.Baked.Release, m.Node.Role.Joins()
	switch {
	case version == "" || version == own.Version:
		return !joins, nil
	case own.Before(version):
		if joins {
			return false, nil
		}
		newer, err := newerControlPlane(ctx, m, c)
		return !newer, cluster.RetryIfTemporary(err)
	}
	return true, nil
}

// ifLeader is step s for a node that may not be the one to do it.
func ifLeader(s converge.Step) converge.Step {
	done := s.Done
	s.Done = func(ctx context.Context, m *node.Machine) (bool, error) {
		edits, err := leadsCluster(ctx, m)
		if err != nil || !edits {
			return err == nil, err
		}
		return done(ctx, m)
	}
	return s
}

// clusterVersion is the Kubernetes version that the cluster keeps in
// kubeadm-config; empty where it keeps none yet.
func clusterVersion(ctx context.Context, c kubernetes.Interface) (string, error) {
	cm, err := node.ReadKubeadmConfig(ctx, c)
	if err != nil {
		return "", err
	}
	version, err := config.VersionOf([]byte(cm.Data["ClusterConfiguration"]))
	if err != nil {
		return "", fmt.Errorf("cannot read ConfigMap %s: %w; correct it with kubectl -n kube-system edit configmap %[1]s", node.KubeadmConfig, err)
	}
	return version, nil
}

// newerControlPlane says whether another node with an API server is of a later
// version than this image.
func newerControlPlane(ctx context.Context, m *node.Machine, c kubernetes.Interface) (bool, error) {
	pods, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=kube-apiserver,tier=control-plane"})
	if err != nil {
		return false, fmt.Errorf("cannot list the pods of the API servers: %w", err)
	}
	for _, p := range pods.Items {
		if p.Spec.NodeName == m.Node.Init.NodeRegistration.Name || len(p.Spec.Containers) == 0 {
			continue
		}
		_, tag := images.SplitName(p.Spec.Containers[0].Image)
		if m.Baked.Release.Before(tag) {
			return true, nil
		}
	}
	return false, nil
}
