package cluster

import corev1 "k8s.io/api/core/v1"

// Marks that kbuild leaves in the API: the operator's machine and a node tell
// each other by them how far a machine is.
const (
	// CordonedAnnotation is on the Node of a machine that will go down, from
	// before its pods leave until a boot of it has come out well: its value is the
	// ID of the boot in which it was put there. The boot after that removes it.
	CordonedAnnotation = "kbuild.dev/cordoned"
	// StaysCordonedAnnotation is beside it on a Node that somebody else had
	// cordoned before; that is not undone.
	StaysCordonedAnnotation = "kbuild.dev/stays-cordoned"
	// LeftAnnotation is on the Node of a worker that has left, which may not delete
	// it itself: its value is when the reset began.
	LeftAnnotation = "kbuild.dev/reset"
	// FellBackReason is the reason of the Event by which a node says why it has
	// gone back to its old slot.
	FellBackReason = "UpgradeFellBack"
)

// Cordon lets no new pods come to n, whose machine will go down.
func Cordon(n *corev1.Node) {
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	if n.Annotations[CordonedAnnotation] == "" && n.Spec.Unschedulable {
		n.Annotations[StaysCordonedAnnotation] = "true"
	}
	n.Annotations[CordonedAnnotation] = n.Status.NodeInfo.BootID
	n.Spec.Unschedulable = true
}

// Uncordon undoes Cordon. A Node that somebody else has cordoned stays so.
func Uncordon(n *corev1.Node) {
	if n.Annotations[CordonedAnnotation] != "" && n.Annotations[StaysCordonedAnnotation] == "" {
		n.Spec.Unschedulable = false
	}
	delete(n.Annotations, CordonedAnnotation)
	delete(n.Annotations, StaysCordonedAnnotation)
}
