package reset

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// RemoveMember takes out of etcd, and in versions that have one out of ClusterStatus,
// what control plane name has left whose machine is gone for good; it runs on
// another one, and may be run again. It is refused where that one may come
// back: its Node is Ready, its member answers, or it is this node.
func RemoveMember(ctx context.Context, m *node.Machine, name string) error {
	n, is, err := node.Load(m.Host)
	if err != nil {
		return err
	}
	m.Node = n
	if !is || m.Node.Role == config.RoleWorker {
		return outcome.Refuse("cannot forget %s: this node is no control plane", name)
	}
	if name == m.Node.Init.NodeRegistration.Name {
		return outcome.Refuse("cannot forget %s: it is this node; `kbuild-firstboot reset` takes it out of its cluster", name)
	}
	c, _, err := m.AsAdmin()
	if err != nil {
		return err
	}
	obj, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot read node %s: %w", name, err)
	}
	if err == nil && slices.ContainsFunc(obj.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) {
		return outcome.Refuse("cannot forget %s: the node is Ready; `kbuild reset %[1]s` resets it", name)
	}
	if m.Node.Cluster.Etcd.Local != nil {
		urls, err := node.EtcdURLs(ctx, c)
		if err != nil {
			return err
		}
		e, err := cluster.ConnectEtcd(m.Host, m.Node.Cluster.CertificatesDir, urls...)
		if err != nil {
			return err
		}
		defer e.Close()
		if err := removeEtcdMember(ctx, m, e, name); err != nil {
			return err
		}
	}
	if !m.Baked.Release.Has(images.FactClusterStatus) {
		return nil
	}
	return m.ChangeClusterStatus(ctx, func(e map[string]config.APIEndpoint) { delete(e, name) })
}

// removeEtcdMember removes the member of that name, if it does not answer.
func removeEtcdMember(ctx context.Context, m *node.Machine, e *cluster.Etcd, name string) error {
	members, err := e.Members(ctx)
	if err != nil {
		return err
	}
	for _, member := range members {
		if member.Name != name {
			continue
		}
		if e.Answers(ctx, member) == nil {
			return outcome.Refuse("cannot forget %s: its member of etcd answers", name)
		}
		m.Host.Log.Warn("removing a dead member of etcd", slog.String("name", member.Name))
		if err := e.Remove(ctx, member); err != nil {
			return err
		}
	}
	return nil
}
