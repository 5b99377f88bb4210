package firstboot

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// markedAnnotation records on a Node which labels and taints it was marked
// with. An administrator who takes the taint away keeps it away; a Node that
// was deleted and registered again has no record and is marked again.
const markedAnnotation = "kbuild.dev/marked"

// stepMarkControlPlane labels this machine's Node as control plane and taints
// it as configured.
func stepMarkControlPlane() converge.Step {
	return converge.Step{
		Name: "mark-control-plane",
		Done: func(ctx context.Context, r *node.Machine) (bool, error) {
			digest, err := markDigest(r)
			if err != nil {
				return false, err
			}
			_, n, err := r.NodeObject(ctx)
			return err == nil && n.Annotations[markedAnnotation] == digest, err
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			digest, err := markDigest(r)
			if err != nil {
				return err
			}
			return r.ChangeNode(ctx, func(n *corev1.Node) {
				mark(n, r)
				metav1.SetMetaDataAnnotation(&n.ObjectMeta, markedAnnotation, digest)
			})

		},
	}
}

func markDigest(r *node.Machine) (string, error) {
	return cluster.Digest([]any{r.Baked.Release.Labels, controlPlaneTaints(r), leavesDefaultTaint(r)})
}

// controlPlaneTaints are the taints that this node shall have.
func controlPlaneTaints(r *node.Machine) []corev1.Taint {
	if t := r.Node.Init.NodeRegistration.Taints; t != nil {
		return t
	}
	return []corev1.Taint{defaultTaint(r)}
}

func defaultTaint(r *node.Machine) corev1.Taint {
	return corev1.Taint{Key: r.Baked.Release.Taint, Effect: corev1.TaintEffectNoSchedule}
}

// leavesDefaultTaint says whether a default taint that is there, from an
// earlier configuration or the kubelet, goes: the configuration says `taints: []`.
func leavesDefaultTaint(r *node.Machine) bool {
	t := r.Node.Init.NodeRegistration.Taints
	return t != nil && len(t) == 0
}

// mark labels and taints n. Taints of others stay.
func mark(n *corev1.Node, r *node.Machine) {
	for _, l := range r.Baked.Release.Labels {
		metav1.SetMetaDataLabel(&n.ObjectMeta, l, "")
	}
	if leavesDefaultTaint(r) {
		d := defaultTaint(r)
		n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return d.MatchTaint(&t) })
		return
	}
	taints := slices.Clone(controlPlaneTaints(r))
	for _, t := range n.Spec.Taints {
		if !slices.Contains(taints, t) {
			taints = append(taints, t)
		}
	}
	n.Spec.Taints = taints
}
