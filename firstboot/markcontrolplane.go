package firstboot

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// markedAnnotation records on a Node which labels and taints it was marked
// with. An administrator who takes the taint away keeps it away; a Node that
// was deleted and registered again has no record and is marked again.
const markedAnnotation = "kbuild.dev/marked"

// stepMarkControlPlane labels this machine's Node as control plane and taints
// it as configured.
func stepMarkControlPlane() Step {
	return Step{
		Name:  "mark-control-plane",
		Needs: []string{"wait-control-plane"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			digest, err := markDigest(r)
			if err != nil {
				return false, err
			}
			_, n, err := thisNode(ctx, r)
			return err == nil && n.Annotations[markedAnnotation] == digest, err
		},
		Do: func(ctx context.Context, r *Run) error {
			digest, err := markDigest(r)
			if err != nil {
				return err
			}
			return nodeDo(ctx, r, func(n *corev1.Node) {
				mark(n, r)
				metav1.SetMetaDataAnnotation(&n.ObjectMeta, markedAnnotation, digest)
			})
		},
	}
}

func markDigest(r *Run) (string, error) {
	return cluster.Digest([]any{r.Baked.Release.Labels, controlPlaneTaints(r), leavesDefaultTaint(r)})
}

// controlPlaneTaints are the taints that this node shall have.
func controlPlaneTaints(r *Run) []corev1.Taint {
	if t := r.Node.Init.NodeRegistration.Taints; t != nil {
		return t
	}
	return []corev1.Taint{defaultTaint(r)}
}

func defaultTaint(r *Run) corev1.Taint {
	return corev1.Taint{Key: r.Baked.Release.Taint, Effect: corev1.TaintEffectNoSchedule}
}

// leavesDefaultTaint says whether a default taint that is there, from an
// earlier configuration or the kubelet, goes: the configuration says `taints: []`.
func leavesDefaultTaint(r *Run) bool {
	t := r.Node.Init.NodeRegistration.Taints
	return t != nil && len(t) == 0
}

// mark labels and taints n. Taints of others stay.
func mark(n *corev1.Node, r *Run) {
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
