package reset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// stepStopKubelet ends the kubelet, so that neither the Node nor a container
// comes back. The containers go on.
func stepStopKubelet() converge.Step {
	return converge.Step{
		Name: "kubelet-stop",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			state, err := m.Host.Systemd.Active(ctx, kubelet.Unit)
			return state == "inactive" || state == "failed", err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return m.Host.Do("stop "+kubelet.Unit, func() error { return m.Host.Systemd.Stop(ctx, kubelet.Unit) })
		},
	}
}

// stepLeaveClusterStatus takes this node out of the list of API servers, in
// versions that keep one (kubeadm reset phase update-cluster-status).
func stepLeaveClusterStatus() converge.Step {
	return leaving(converge.Step{
		Name: "update-cluster-status",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !m.Baked.Release.Has(images.FactClusterStatus) || m.Node.Role == config.RoleWorker {
				return true, nil
			}
			c, _, err := m.AsAdmin()
			if err != nil {
				return false, err
			}
			endpoints, err := node.APIEndpoints(ctx, c)
			_, listed := endpoints[m.Node.Init.NodeRegistration.Name]
			return err == nil && !listed, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return m.ChangeClusterStatus(ctx, func(e map[string]config.APIEndpoint) { delete(e, m.Node.Init.NodeRegistration.Name) })
		},
	})
}

// stepLeaveNode removes this machine's Node. A worker may not do that; it notes
// on its Node that it has left, and whoever asked for the reset removes it.
func stepLeaveNode() converge.Step {
	return leaving(converge.Step{
		Name: "remove-node",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			c, _, err := m.AsNode()
			if err != nil {
				return false, err
			}
			n, err := c.CoreV1().Nodes().Get(ctx, m.Node.Init.NodeRegistration.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("cannot read this machine's Node: %w", err)
			}
			value, err := leftValue(m)
			return m.Node.Role == config.RoleWorker && n.Annotations[cluster.LeftAnnotation] == value, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			c, _, err := m.AsNode()
			if err != nil {
				return err
			}
			name := m.Node.Init.NodeRegistration.Name
			if m.Node.Role != config.RoleWorker {
				err = c.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
			} else {
				var value string
				if value, err = leftValue(m); err != nil {
					return err
				}
				patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{cluster.LeftAnnotation: value}}})
				_, err = c.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: cluster.Manager})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("cannot tell the cluster that node %s has left: %w", name, err)
			}
			return nil
		},
	})
}

func leftValue(m *node.Machine) (string, error) {
	p, err := readProgress(m)
	return p.Begun.UTC().Format(time.RFC3339Nano), err
}

// stepLeaveEtcd takes this node's member out of etcd (kubeadm reset phase
// remove-etcd-member). The other members are asked: one does not remove itself.
func stepLeaveEtcd() converge.Step {
	return leaving(converge.Step{
		Name: "remove-etcd-member",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if m.Node.Role == config.RoleWorker || m.Node.Cluster.Etcd.Local == nil {
				return true, nil
			}
			e, _, err := m.Etcd(ctx)
			if err != nil {
				return false, err
			}
			defer e.Close()
			list, err := e.Members(ctx)
			return err == nil && !slices.ContainsFunc(list, func(member cluster.Member) bool { return m.OwnsMember(member) }), err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			e, _, err := m.Etcd(ctx)
			if err != nil {
				return err
			}
			defer e.Close()
			list, err := e.Members(ctx)
			for _, member := range list {
				if err == nil && m.OwnsMember(member) {
					err = e.Remove(ctx, member)
				}
			}
			return err
		},
	})
}
