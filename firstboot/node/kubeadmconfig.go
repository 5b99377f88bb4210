package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// ChangeClusterStatus changes the list as it stands; when another node does so at the
// same moment, one of the two is told and tries again.
func (m *Machine) ChangeClusterStatus(ctx context.Context, change func(map[string]config.APIEndpoint)) error {
	c, _, err := m.AsAdmin()
	if err != nil {
		return err
	}
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := maps.Get(ctx, KubeadmConfig, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("cannot read ConfigMap %s: %w", KubeadmConfig, err)
	}
	endpoints, err := config.UnmarshalClusterStatus([]byte(cm.Data["ClusterStatus"]))
	if err != nil {
		return fmt.Errorf("cannot read ConfigMap %s: %w; correct it with kubectl -n kube-system edit configmap %s", KubeadmConfig, err, KubeadmConfig)
	}
	if endpoints == nil {
		endpoints = map[string]config.APIEndpoint{}
	}
	change(endpoints)
	status, err := config.MarshalClusterStatus(endpoints, m.Baked.Release)
	if err != nil {
		return fmt.Errorf("cannot write the ClusterStatus: %w", err)
	}
	cm.Data["ClusterStatus"] = string(status)
	if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{FieldManager: cluster.Manager}); err != nil {
		return fmt.Errorf("cannot write ConfigMap %s: %w", KubeadmConfig, err)
	}
	return nil
}

const (
	KubeadmConfig = "kubeadm-config"
)

// ReadKubeadmConfig reads the cluster's kubeadm-config; one that is not there
// yet is empty.
func ReadKubeadmConfig(ctx context.Context, c kubernetes.Interface) (*corev1.ConfigMap, error) {
	cm, err := c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, KubeadmConfig, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read ConfigMap %s: %w", KubeadmConfig, err)
	}
	return cm, nil
}

// APIEndpoints reads the API servers that kubeadm-config lists so far.
func APIEndpoints(ctx context.Context, c kubernetes.Interface) (map[string]config.APIEndpoint, error) {
	endpoints := map[string]config.APIEndpoint{}
	cm, err := ReadKubeadmConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	listed, err := config.UnmarshalClusterStatus([]byte(cm.Data["ClusterStatus"]))
	if err != nil {
		return nil, fmt.Errorf("cannot read ConfigMap %s: %w; correct it with kubectl -n kube-system edit configmap %s", KubeadmConfig, err, KubeadmConfig)
	}
	for name, e := range listed {
		endpoints[name] = e
	}
	return endpoints, nil
}
