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
	want := func(m *node.Machine) ([]manifest, error) {
		if m.Node.Cluster.Etcd.Local == nil {
			return nil, nil
		}
		return manifests(m, templates.EtcdPod(podParams(m)))
	}
	return converge.Step{
		Name: "etcd",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			ms, err := want(m)
			return err == nil && manifestsDone(m, ms), err
		},
		Do: func(_ context.Context, m *node.Machine) error {
			ms, err := want(m)
			if err != nil {
				return err
			}
			// The kubelet would make it readable for everybody.
			if err := m.Host.MkdirAll(m.Node.Cluster.Etcd.Local.DataDir, 0o700); err != nil {
				return err
			}
			return writeManifests(m, ms)
		},
	}
}
