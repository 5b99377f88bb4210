package cluster

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// ChangeNode makes change to the Node before, as it was read: to its labels,
// annotations and taints, and to whether pods may come. Nothing is sent where
// that is so already.
func ChangeNode(ctx context.Context, c kubernetes.Interface, before *corev1.Node, change func(*corev1.Node)) error {
	after := before.DeepCopy()
	change(after)
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	patch, err := nodePatch(before, after)
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Nodes().Patch(ctx, before.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	return err
}

// nodePatch is a merge patch of what differs. A change of taints replaces the
// whole list, and one of whether pods may come depends on who had a say before;
// so both name the version that they were made from: what somebody else does at
// the same moment is a conflict, and not lost.
func nodePatch(before, after *corev1.Node) ([]byte, error) {
	meta := map[string]any{}
	for name, maps := range map[string][2]map[string]string{
		"labels":      {before.Labels, after.Labels},
		"annotations": {before.Annotations, after.Annotations},
	} {
		if d := changed(maps[0], maps[1]); len(d) > 0 {
			meta[name] = d
		}
	}
	spec := map[string]any{}
	if before.Spec.Unschedulable != after.Spec.Unschedulable {
		spec["unschedulable"] = after.Spec.Unschedulable
	}
	if !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
		spec["taints"] = after.Spec.Taints
	}
	if len(spec) > 0 {
		meta["resourceVersion"] = before.ResourceVersion
	}
	return json.Marshal(map[string]any{"metadata": meta, "spec": spec})
}

// changed are the entries of after that differ, and null for those of before
// that are gone: so a merge patch removes them.
func changed(before, after map[string]string) map[string]any {
	m := map[string]any{}
	for k := range before {
		if _, still := after[k]; !still {
			m[k] = nil
		}
	}
	for k, v := range after {
		if old, was := before[k]; !was || old != v {
			m[k] = v
		}
	}
	return m
}
