package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

const (
	nodesKubeadmConfig  = "kubeadm:nodes-kubeadm-config"
	configHash          = "kubeadm.kubernetes.io/component-config.hash"
	criSocketAnnotation = "kubeadm.alpha.kubernetes.io/cri-socket"
	// overlayAnnotation is on kubeadm-config: what images have put over it, as JSON
	// of a config.Overlay.
	overlayAnnotation = "kbuild.dev/laid"
)

// stepUploadConfig keeps the cluster's configuration in the cluster, where
// joining nodes and kubeadm look for it: kubeadm-config, the kubelets'
// configuration, and on this node's Node object its CRI socket.
func stepUploadConfig() converge.Step {
	return converge.Step{
		Name: "upload-config",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if ok, err := partsApplied(ctx, m, uploadConfigParts); !ok || err != nil {
				return false, err
			}
			return m.NodeIs(ctx, criSocketOf(m))
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			if err := applyParts(ctx, m, uploadConfigParts); err != nil {
				return err
			}
			return m.ChangeNode(ctx, criSocketOf(m))
		},
	}
}

// stepCRISocket notes a joined node's CRI socket on its Node, as kubeadm's
// phase kubelet-start does at its end.
func stepCRISocket() converge.Step {
	return converge.Step{
		Name: "kubelet-start/cri-socket",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) { return m.NodeIs(ctx, criSocketOf(m)) },
		Do:   func(ctx context.Context, m *node.Machine) error { return m.ChangeNode(ctx, criSocketOf(m)) },
	}
}

// criSocketOf notes the node's CRI socket on it, in versions that do, and takes
// the note away where kubeadm's upgrade does.
func criSocketOf(m *node.Machine) func(*corev1.Node) {
	rel := m.Release()
	return func(n *corev1.Node) {
		switch {
		case rel.Has(images.FactCRISocketAnnotation):
			metav1.SetMetaDataAnnotation(&n.ObjectMeta, criSocketAnnotation, kubelet.CRISocket(m.Node, rel))
		case rel.Has(images.FactCRISocketDropped) && rel.Has(images.FactInstanceConfig):
			delete(n.Annotations, criSocketAnnotation)
		}
	}
}

func uploadConfigParts(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error) {
	var parts []cluster.Part
	if !m.Node.Skips("upload-config/kubeadm") {
		p, err := kubeadmConfigPart(m, c)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if !m.Node.Skips("upload-config/kubelet") {
		p, err := kubeletConfigPart(m, c)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// kubeadmConfigPart is the cluster's configuration, and in versions that keep
// one the list of API servers, to which this node adds itself.
func kubeadmConfigPart(m *node.Machine, c kubernetes.Interface) (cluster.Part, error) {
	conf, err := config.MarshalCluster(m.Node, m.Baked.Release)
	if err != nil {
		return cluster.Part{}, fmt.Errorf("cannot write the ClusterConfiguration: %w", err)
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: node.KubeadmConfig, Namespace: metav1.NamespaceSystem},
		Data:       map[string]string{"ClusterConfiguration": string(conf)},
	}
	rules := readable(nodesKubeadmConfig, metav1.NamespaceSystem, "configmaps", node.KubeadmConfig, group(bootstrapGroup), group(nodesGroup))
	name, self := m.Node.Init.NodeRegistration.Name, m.Node.Init.LocalAPIEndpoint
	wants := []any{cm, rules, m.Baked.Release.Has(images.FactClusterStatus), name, self}
	return cluster.Part{Name: "upload-config.kubeadm", Wants: wants, Objects: rules, Apply: func(ctx context.Context, before cluster.Before) ([]string, error) {
		if m.Baked.Release.Has(images.FactClusterStatus) {
			endpoints, err := node.APIEndpoints(ctx, c)
			if err != nil {
				return nil, err
			}
			endpoints[name] = self
			status, err := config.MarshalClusterStatus(endpoints, m.Baked.Release)
			if err != nil {
				return nil, fmt.Errorf("cannot write the ClusterStatus: %w", err)
			}
			cm.Data["ClusterStatus"] = string(status)
		}
		if err := keepEdited(ctx, c, cm, m); err != nil {
			return nil, err
		}
		theirs, err := cluster.ReviseAll(ctx, c, before, rules...)
		if err != nil {
			return nil, err
		}
		// Neither joining nor upgrading works without it, so it comes back.
		return theirs, cluster.Ensure(ctx, c, cm)
	}}, nil
}

// keepEdited makes cm, which is to replace the cluster's kubeadm-config, the one
// that is there in this image's version, with what this image's own
// configuration says: a cluster keeps what its administrators wrote. What images
// have put over it is noted on it, for the next to take back.
func keepEdited(ctx context.Context, c kubernetes.Interface, cm *corev1.ConfigMap, m *node.Machine) error {
	have, err := node.ReadKubeadmConfig(ctx, c)
	if err != nil {
		return err
	}
	var over config.Overlay
	note, noted := have.Annotations[overlayAnnotation]
	if noted {
		if err := json.Unmarshal([]byte(note), &over); err != nil {
			m.Host.Log.Warn("what images have put over the cluster's configuration stays in it: its note cannot be read", slog.String("annotation", overlayAnnotation), slog.Any("error", err))
		}
	}
	var moved []byte
	was := have.Data["ClusterConfiguration"]
	if was != "" {
		moved, err = config.MoveCluster([]byte(was), m.Baked.Release)
	}
	if err == nil {
		moved, over, err = m.Node.OverlayCluster(moved, over)
	}
	if err != nil {
		return fmt.Errorf("cannot read ConfigMap %s: %w", cm.Name, err)
	}
	if len(moved) > 0 {
		cm.Data["ClusterConfiguration"] = string(moved)
	}
	if len(over) > 0 || noted {
		b, err := json.Marshal(over)
		if err != nil {
			return err
		}
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, overlayAnnotation, string(b))
	}
	return nil
}

// kubeletConfigPart is the configuration that joining kubelets start from.
func kubeletConfigPart(m *node.Machine, c kubernetes.Interface) (cluster.Part, error) {
	name := m.Release().KubeletConfigMap
	conf, err := config.MarshalKubelet(m.Node, m.Baked.Release)
	if err != nil {
		return cluster.Part{}, fmt.Errorf("cannot write the KubeletConfiguration: %w", err)
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Data:       map[string]string{"kubelet": string(conf)},
	}
	signGenerated(cm, !userSupplied(m.Node, "kubelet"))
	objs := readable("kubeadm:"+name, metav1.NamespaceSystem, "configmaps", name, group(nodesGroup), group(bootstrapGroup))
	p := cluster.ObjectsPart(c, "upload-config.kubelet", append(objs, cm), nil)
	apply := p.Apply
	p.Apply = func(ctx context.Context, before cluster.Before) ([]string, error) {
		edited, err := carryKubeletConfig(ctx, c, before, cm)
		if err != nil {
			return nil, err
		}
		theirs, err := apply(ctx, before)
		return append(edited, theirs...), err
	}
	return p, nil
}

// carryKubeletConfig gives cm the text of its predecessor, which another version
// keeps under another name, where somebody has edited that.
func carryKubeletConfig(ctx context.Context, c kubernetes.Interface, before cluster.Before, cm *corev1.ConfigMap) ([]string, error) {
	name, edited, err := kubeletConfigBefore(ctx, c, before)
	if err != nil || name == "" || name == cm.Name {
		return nil, err
	}
	have, err := c.CoreV1().ConfigMaps(cm.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("cannot read ConfigMap %s: %w", name, err)
	}
	if have.Data["kubelet"] == "" || !edited(have) {
		return nil, nil
	}
	cm.Data["kubelet"] = have.Data["kubelet"]
	delete(cm.Annotations, configHash)
	return []string{fmt.Sprintf("ConfigMap %s was edited, and %s carries its text on", name, cm.Name)}, nil
}

// kubeletConfigBefore names the ConfigMap of the version before, empty if there
// is none, and tells by what an image of ours has recorded, or else by kubeadm's
// signature, whether it was edited.
func kubeletConfigBefore(ctx context.Context, c kubernetes.Interface, before cluster.Before) (name string, edited func(*corev1.ConfigMap) bool, err error) {
	for _, was := range cluster.Objects[corev1.ConfigMap](before) {
		return was.Name, func(have *corev1.ConfigMap) bool { return have.Data["kubelet"] != was.Data["kubelet"] }, nil
	}
	version, err := clusterVersion(ctx, c)
	if err != nil {
		return "", nil, err
	}
	if rel, err := images.Assume(version); err == nil {
		name = rel.KubeletConfigMap
	}
	return name, func(have *corev1.ConfigMap) bool { return !signed(have) }, nil
}

// signGenerated puts kubeadm's checksum on configuration that nobody supplied:
// what still carries a right one may be replaced by an upgrade.
func signGenerated(cm *corev1.ConfigMap, generated bool) {
	if generated {
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, configHash, checksum(cm))
	}
}

// signed says whether nobody has supplied or edited the configuration in cm.
func signed(cm *corev1.ConfigMap) bool { return cm.Annotations[configHash] == checksum(cm) }

func checksum(cm *corev1.ConfigMap) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(cm.Data)) {
		h.Write([]byte(cm.Data[k]))
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
