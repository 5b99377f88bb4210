package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/templates"
)

// stepEtcd writes the static pod of a local etcd (kubeadm init phase etcd
// local). With an external etcd there is nothing to do.
func stepEtcd() Step {
	want := func(r *Run) ([]manifest, error) {
		if r.Node.Cluster.Etcd.Local == nil {
			return nil, nil
		}
		return manifests(r, templates.EtcdPod(podParams(r)))
	}
	return Step{
		Name:  "etcd",
		Needs: []string{"certs", "images"},
		Done: func(_ context.Context, r *Run) (bool, error) {
			ms, err := want(r)
			return err == nil && manifestsDone(r, ms), err
		},
		Do: func(_ context.Context, r *Run) error {
			ms, err := want(r)
			if err != nil {
				return err
			}
			// The kubelet would make it readable for everybody.
			if err := r.Host.MkdirAll(r.Node.Cluster.Etcd.Local.DataDir, 0o700); err != nil {
				return err
			}
			return writeManifests(r, ms)
		},
	}
}
