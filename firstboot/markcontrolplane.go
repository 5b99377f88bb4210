package firstboot

import (
	"context"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// markedAnnotation records on a Node which labels and taints it was marked
// with, as JSON of marks. An administrator who takes one away keeps it away,
// in other versions, too; a Node that was deleted and registered again has no
// record and is marked again.
const markedAnnotation = "kbuild.dev/marked"

// marks are the labels and taints of a control plane's Node.
type marks struct {
	Labels []string       `json:"labels"`
	Taints []corev1.Taint `json:"taints"`
	// Default says that the taints are the version's, and no configuration's.
	Default bool `json:"default,omitempty"`
}

// stepMarkControlPlane labels this machine's Node as control plane and taints
// it as configured.
func stepMarkControlPlane() converge.Step {
	return converge.Step{
		Name: "mark-control-plane",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			record, err := wantedMarks(m).record()
			if err != nil {
				return false, err
			}
			_, n, err := m.NodeObject(ctx)
			return err == nil && n.Annotations[markedAnnotation] == record, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			record, err := wantedMarks(m).record()
			if err != nil {
				return err
			}
			return m.ChangeNode(ctx, func(n *corev1.Node) {
				mark(n, m)
				metav1.SetMetaDataAnnotation(&n.ObjectMeta, markedAnnotation, record)
			})
		},
	}
}

func (m marks) record() (string, error) {
	b, err := json.Marshal(m)
	return string(b), err
}

// wantedMarks are those that this image and configuration ask for.
func wantedMarks(m *node.Machine) marks {
	want := marks{Labels: m.Baked.Release.Labels, Taints: m.Node.Init.NodeRegistration.Taints}
	if want.Taints == nil {
		want.Taints, want.Default = config.DefaultTaints(m.Baked.Release), true
	}
	return want
}

// mark labels and taints n with what is not recorded on it. Taints of others
// stay.
func mark(n *corev1.Node, m *node.Machine) {
	want := wantedMarks(m)
	was := marks{Default: want.Default}
	record, marked := n.Annotations[markedAnnotation]
	switch {
	case !marked && len(want.Taints) == 0:
		was.Taints = config.DefaultTaints(m.Baked.Release) // of an earlier configuration, or the kubelet's
	case marked && json.Unmarshal([]byte(record), &was) != nil:
		was.Taints = want.Taints // it does not say which
	}
	for _, l := range want.Labels {
		if !slices.Contains(was.Labels, l) {
			metav1.SetMetaDataLabel(&n.ObjectMeta, l, "")
		}
	}
	n.Spec.Taints = retaint(n.Spec.Taints, was, want, !marked)
}

// retaint is what taints become that were marked as was. The default taint of
// another version takes the place of the one before, and comes back to no Node
// that an administrator has taken it from.
func retaint(have []corev1.Taint, was, want marks, first bool) []corev1.Taint {
	lost := func(t corev1.Taint) bool { return slices.Contains(was.Taints, t) && !slices.Contains(have, t) }
	added := slices.DeleteFunc(slices.Clone(want.Taints), func(t corev1.Taint) bool {
		return slices.Contains(was.Taints, t) ||
			!first && was.Default && want.Default && slices.ContainsFunc(was.Taints, lost)
	})
	for _, t := range have {
		gone := slices.Contains(was.Taints, t) && !slices.Contains(want.Taints, t)
		if !gone && !slices.Contains(added, t) {
			added = append(added, t)
		}
	}
	return added
}
