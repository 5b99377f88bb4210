package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// appliedName is the ConfigMap in kube-system that records what kbuild has
// applied: a key for each part, holding the digest of what was applied.
//
// The record is what makes a later boot leave the cluster alone: an
// administrator may scale CoreDNS, remove kube-proxy or tighten a binding, and
// no reboot takes that back; only an image or a node configuration that wants
// something else is applied again, and then only in what it wants otherwise: see
// ReviseAll. It lies in the cluster and not on the node,
// because it must live and die with what it speaks of: an etcd that starts
// empty, or is restored to an earlier day, brings its own record.
const appliedName = "kbuild-applied"

// Applied returns what is recorded; nothing recorded is an empty map.
func Applied(ctx context.Context, c kubernetes.Interface) (map[string]string, error) {
	cm, err := c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, appliedName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what is applied: %w", err)
	}
	return cm.Data, nil
}

// Record notes that part was applied with digest.
func Record(ctx context.Context, c kubernetes.Interface, part, digest string) error {
	cms := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	patch, err := json.Marshal(map[string]any{"data": map[string]string{part: digest}})
	if err != nil {
		return err
	}
	_, err = cms.Patch(ctx, appliedName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if apierrors.IsNotFound(err) {
		_, err = cms.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: appliedName, Namespace: metav1.NamespaceSystem},
			Data:       map[string]string{part: digest},
		}, metav1.CreateOptions{FieldManager: Manager})
		if apierrors.IsAlreadyExists(err) { // another part was quicker
			_, err = cms.Patch(ctx, appliedName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
		}
	}
	if err != nil {
		return fmt.Errorf("cannot record that %s is applied: %w", part, err)
	}
	return nil
}

// Digest is the digest of anything that JSON can hold.
func Digest(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b)), nil
}
