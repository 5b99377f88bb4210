package firstboot

import (
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
)

// stepEtcd writes the static pod of a local etcd (kubeadm init phase etcd
// local). With an external etcd there is nothing to do.
func stepEtcd() converge.Step {
	return manifestStep("etcd", func(m *node.Machine) ([]manifest, error) {
		if m.Node.Cluster.Etcd.Local == nil {
			return nil, nil
		}
		return manifests(m, templates.EtcdPod(podParams(m)))
	})
}
