package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
)

// stepEtcd writes the static pod of a local etcd (kubeadm init phase etcd
// local). With an external etcd there is nothing to do.
func stepEtcd() converge.Step {
	want := func(r *node.Machine) ([]manifest, error) {
		if r.Node.Cluster.Etcd.Local == nil {
			return nil, nil
		}
		return manifests(r, templates.EtcdPod(podParams(r)))
	}
	return converge.Step{
		Name: "etcd",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			ms, err := want(r)
			return err == nil && manifestsDone(r, ms), err
		},
		Do: func(_ context.Context, r *node.Machine) error {
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
