package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
)

// stepControlPlane writes the static pods of API server, controller manager
// and scheduler (kubeadm init phase control-plane all).
func stepControlPlane() converge.Step {
	want := func(r *node.Machine) ([]manifest, error) {
		return manifests(r, templates.ControlPlanePods(podParams(r))...)
	}
	return converge.Step{
		Name: "control-plane",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			ms, err := want(r)
			return err == nil && manifestsDone(r, ms), err
		},
		Do: func(_ context.Context, r *node.Machine) error {
			ms, err := want(r)
			if err != nil {
				return err
			}
			return writeManifests(r, ms)
		},
	}
}
