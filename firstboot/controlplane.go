package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/templates"
)

// stepControlPlane writes the static pods of API server, controller manager
// and scheduler (kubeadm init phase control-plane all).
func stepControlPlane() Step {
	want := func(r *Run) ([]manifest, error) {
		return manifests(r, templates.ControlPlanePods(podParams(r))...)
	}
	return Step{
		Name:  "control-plane",
		Needs: []string{"kubeconfig", "images"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			ms, err := want(r)
			return err == nil && manifestsDone(r, ms), err
		},
		Do: func(_ context.Context, r *Run) error {
			ms, err := want(r)
			if err != nil {
				return err
			}
			return writeManifests(r, ms)
		},
	}
}
