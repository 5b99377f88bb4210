package firstboot

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
)

// stepControlPlane writes the static pods of API server, controller manager
// and scheduler (kubeadm init phase control-plane all), but for those that
// skipPhases leaves to somebody else.
func stepControlPlane() converge.Step {
	want := func(m *node.Machine) ([]manifest, error) {
		pods := slices.DeleteFunc(templates.ControlPlanePods(podParams(m)), func(p *corev1.Pod) bool {
			return m.Node.Skips("control-plane/" + strings.TrimPrefix(p.Name, "kube-"))
		})
		return manifests(m, pods...)
	}
	return converge.Step{
		Name: "control-plane",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			ms, err := want(m)
			return err == nil && manifestsDone(m, ms), err
		},
		Do: func(_ context.Context, m *node.Machine) error {
			ms, err := want(m)
			if err != nil {
				return err
			}
			return writeManifests(m, ms)
		},
	}
}
