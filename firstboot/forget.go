package firstboot

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
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// Forget takes out of etcd, and in versions that have one out of ClusterStatus,
// what control plane name has left whose machine is gone for good; it runs on
// another one, and may be run again. An error is Final where that one may come
// back: its Node is Ready, its member answers, or it is this node.
func Forget(ctx context.Context, r *Run, name string) error {
	if err := loadReset(r, ResetOptions{}); err != nil {
		return err
	}
	return forget(ctx, r, name)
}

func forget(ctx context.Context, r *Run, name string) error {
	if r.Node == nil || r.Node.Role == config.RoleWorker {
		return outcome.Refuse("cannot forget %s: this node is no control plane", name)
	}
	if name == r.Node.Init.NodeRegistration.Name {
		return outcome.Refuse("cannot forget %s: it is this node; `kbuild-firstboot reset` takes it out of its cluster", name)
	}
	c, _, err := asAdmin(r)
	if err != nil {
		return err
	}
	n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot read node %s: %w", name, err)
	}
	if err == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) {
		return outcome.Refuse("cannot forget %s: the node is Ready; `kbuild reset %[1]s` resets it", name)
	}
	if r.Node.Cluster.Etcd.Local != nil {
		urls, err := etcdURLs(ctx, c)
		if err != nil {
			return err
		}
		e, err := cluster.ConnectEtcd(r.Host, r.Node.Cluster.CertificatesDir, urls...)
		if err != nil {
			return err
		}
		defer e.Close()
		if err := forgetMember(ctx, r, e, name); err != nil {
			return err
		}
	}
	if !r.Baked.Release.ClusterStatus {
		return nil
	}
	return changeClusterStatus(ctx, r, func(e map[string]config.APIEndpoint) { delete(e, name) })
}

// forgetMember removes the member of that name, if it does not answer.
func forgetMember(ctx context.Context, r *Run, e *cluster.Etcd, name string) error {
	members, err := e.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Name != name {
			continue
		}
		if e.Answers(ctx, m) == nil {
			return outcome.Refuse("cannot forget %s: its member of etcd answers", name)
		}
		r.Host.Log.Warn("removing a dead member of etcd", slog.String("name", m.Name))
		if err := e.Remove(ctx, m); err != nil {
			return err
		}
	}
	return nil
}
