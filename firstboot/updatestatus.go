package firstboot

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// stepUpdateStatus adds this node to the list of API servers, in versions that
// keep one (kubeadm join phase control-plane-join update-status).
func stepUpdateStatus() Step {
	return Step{
		Name:  "update-status",
		Needs: []string{"wait-control-plane"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			if !r.Baked.Release.ClusterStatus {
				return true, nil
			}
			c, _, err := asAdmin(r)
			if err != nil {
				return false, err
			}
			endpoints, err := apiEndpoints(ctx, c)
			return err == nil && endpoints[r.Node.Init.NodeRegistration.Name] == r.Node.Init.LocalAPIEndpoint, cluster.RetryIfTemporary(err)
		},
		Do: func(ctx context.Context, r *Run) error { return cluster.RetryIfTemporary(updateStatus(ctx, r)) },
	}
}

// updateStatus adds this node.
func updateStatus(ctx context.Context, r *Run) error {
	return changeClusterStatus(ctx, r, func(e map[string]config.APIEndpoint) {
		e[r.Node.Init.NodeRegistration.Name] = r.Node.Init.LocalAPIEndpoint
	})
}

// changeClusterStatus changes the list as it stands; when another node does so at the
// same moment, one of the two is told and tries again.
func changeClusterStatus(ctx context.Context, r *Run, change func(map[string]config.APIEndpoint)) error {
	c, _, err := asAdmin(r)
	if err != nil {
		return err
	}
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := maps.Get(ctx, kubeadmConfig, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("cannot read ConfigMap %s: %w", kubeadmConfig, err)
	}
	endpoints, err := config.UnmarshalClusterStatus([]byte(cm.Data["ClusterStatus"]))
	if err != nil {
		return fmt.Errorf("cannot read ConfigMap %s: %w; correct it with kubectl -n kube-system edit configmap %s", kubeadmConfig, err, kubeadmConfig)
	}
	if endpoints == nil {
		endpoints = map[string]config.APIEndpoint{}
	}
	change(endpoints)
	status, err := config.MarshalClusterStatus(endpoints, r.Baked.Release)
	if err != nil {
		return fmt.Errorf("cannot write the ClusterStatus: %w", err)
	}
	cm.Data["ClusterStatus"] = string(status)
	if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{FieldManager: cluster.Manager}); err != nil {
		return fmt.Errorf("cannot write ConfigMap %s: %w", kubeadmConfig, err)
	}
	return nil
}
