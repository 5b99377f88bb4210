package firstboot

import (
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
	return manifestStep("control-plane", func(m *node.Machine) ([]manifest, error) {
		pods := slices.DeleteFunc(templates.ControlPlanePods(podParams(m)), func(p *corev1.Pod) bool {
			return m.Node.Skips("control-plane/" + strings.TrimPrefix(p.Name, "kube-"))
		})
		return manifests(m, pods...)
	})
}
