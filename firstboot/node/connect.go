package node

import (
	"errors"
	"fmt"
	"io/fs"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// AsAdmin connects to the cluster as its administrator.
func (m *Machine) AsAdmin() (kubernetes.Interface, *rest.Config, error) {
	c, cfg, err := cluster.Connect(m.Host, AdminKubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: the kubeconfig step writes it", err)
	}
	return c, cfg, err
}

// AsNode connects to the cluster as its administrator where this node can, and
// else as the node itself.
func (m *Machine) AsNode() (kubernetes.Interface, *rest.Config, error) {
	if m.Node.Role != config.RoleWorker {
		return m.AsAdmin()
	}
	return cluster.Connect(m.Host, KubeletKubeconfig)
}
