package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// stepUpdateStatus adds this node to the list of API servers, in versions that
// keep one (kubeadm join phase control-plane-join update-status).
func stepUpdateStatus() converge.Step {
	return converge.Step{
		Name: "update-status",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !m.Baked.Release.Has(images.FactClusterStatus) {
				return true, nil
			}
			c, _, err := m.AsAdmin()
			if err != nil {
				return false, err
			}
			endpoints, err := node.APIEndpoints(ctx, c)
			return err == nil && endpoints[m.Node.Init.NodeRegistration.Name] == m.Node.Init.LocalAPIEndpoint, cluster.RetryIfTemporary(err)
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return cluster.RetryIfTemporary(updateStatus(ctx, m))
		},
	}
}

// updateStatus adds this node.
func updateStatus(ctx context.Context, m *node.Machine) error {
	return m.ChangeClusterStatus(ctx, func(e map[string]config.APIEndpoint) {
		e[m.Node.Init.NodeRegistration.Name] = m.Node.Init.LocalAPIEndpoint
	})

}
