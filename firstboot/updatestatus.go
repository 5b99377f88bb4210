package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// stepUpdateStatus adds this node to the list of API servers, in versions that
// keep one (kubeadm join phase control-plane-join update-status).
func stepUpdateStatus() converge.Step {
	return converge.Step{
		Name: "update-status",
		Done: func(ctx context.Context, r *node.Machine) (bool, error) {
			if !r.Baked.Release.ClusterStatus {
				return true, nil
			}
			c, _, err := r.AsAdmin()
			if err != nil {
				return false, err
			}
			endpoints, err := node.APIEndpoints(ctx, c)
			return err == nil && endpoints[r.Node.Init.NodeRegistration.Name] == r.Node.Init.LocalAPIEndpoint, cluster.RetryIfTemporary(err)
		},
		Do: func(ctx context.Context, r *node.Machine) error {
			return cluster.RetryIfTemporary(updateStatus(ctx, r))
		},
	}
}

// updateStatus adds this node.
func updateStatus(ctx context.Context, r *node.Machine) error {
	return r.ChangeClusterStatus(ctx, func(e map[string]config.APIEndpoint) {
		e[r.Node.Init.NodeRegistration.Name] = r.Node.Init.LocalAPIEndpoint
	})

}
