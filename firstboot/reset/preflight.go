package reset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/slot"
)

// stepPreflight refuses, before anything is done, a reset that the cluster
// cannot take. When it holds, the reset has begun.
func stepPreflight(o Options) converge.Step {
	return converge.Step{
		Name: "preflight",
		Done: func(_ context.Context, p *node.Machine) (bool, error) { return node.Resetting(p.Host), nil },
		Do: func(ctx context.Context, m *node.Machine) error {
			p := progress{Options: o, Begun: m.Host.Now()}
			if err := onTrial(ctx, m); err != nil && !o.Force {
				return fmt.Errorf("%w; nothing was done. To reset this node all the same, use --force", err)
			}
			loss, err := lossOfNode(ctx, m)
			switch {
			case err != nil && !o.Force:
				return fmt.Errorf("%w; nothing was done. To reset this node without telling the cluster, use --force", err)
			case err != nil:
				m.Host.Log.Warn("the cluster may not hear that this node leaves", slog.Any("error", err))
			case loss.Says != "" && !o.Force:
				return fmt.Errorf("%s; nothing was done. If that is what you want, use --force", loss.Says)
			case loss.Says != "":
				m.Host.Log.Warn("the reset is forced: " + loss.Says)
			}
			p.Left = loss.Ends
			return writeProgress(m, p)
		},
	}
}

// onTrial says why a node whose image is on trial is not made anew.
func onTrial(ctx context.Context, m *node.Machine) error {
	trial, err := slot.OnTrial(ctx, m.Host) // it may have been kept since the boot
	if trial {
		return errors.New("the image that runs is on trial (`kbuild-firstboot upgrade status`): should it not become healthy, the one before could not go on with a node that this one has made; wait until it is kept")
	}
	return err
}

// lossOfNode is what the cluster loses with this node. Ends is that no cluster is
// left that could be told.
func lossOfNode(ctx context.Context, m *node.Machine) (cluster.Loss, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch {
	case m.Node == nil, m.Node.Role.Joins() && !m.Joined(), !m.Node.Role.Joins() && !m.Host.Exists(node.AdminKubeconfig):
		return cluster.Loss{Ends: true}, nil // it is part of no cluster
	case m.Node.Role == config.RoleWorker:
		c, _, err := m.AsNode()
		if err == nil {
			_, err = c.CoreV1().Nodes().Get(ctx, m.Node.Init.NodeRegistration.Name, metav1.GetOptions{})
		}
		if cluster.Temporary(err) {
			return cluster.Loss{}, fmt.Errorf("cannot tell the cluster that this node leaves: %w", err)
		}
		return cluster.Loss{}, nil
	}
	c, _, err := m.AsAdmin()
	if err != nil {
		return cluster.Loss{}, err
	}
	others, err := otherControlPlanes(ctx, m, c)
	if err != nil {
		return cluster.Loss{}, err
	}
	if len(others) == 0 {
		return cluster.LossOfLast("this node", m.Node.Cluster.Etcd.Local != nil), nil
	}
	if makesCluster(ctx, m) {
		return cluster.Loss{Says: "this machine's user-data says role: init, so it would begin another cluster beside the one of " + strings.Join(others, ", ") + "; give it user-data with role: control-plane first"}, nil
	}
	if m.Node.Cluster.Etcd.Local == nil {
		return cluster.Loss{}, nil
	}
	return quorumWithout(ctx, m, c)
}

// makesCluster says whether the user-data that this machine has now would make
// it a first control plane again.
func makesCluster(ctx context.Context, m *node.Machine) bool {
	found, err := metadata.Find(ctx, m.Host)
	if err != nil {
		return false
	}
	facts, err := node.Facts(ctx, m.Host)
	if err != nil {
		return false
	}
	n, _, err := config.Load(m.Baked, facts, found.Documents...)
	return err == nil && n.Role == config.RoleInit
}

// otherControlPlanes are the names of the cluster's other control planes.
func otherControlPlanes(ctx context.Context, m *node.Machine, c kubernetes.Interface) ([]string, error) {
	list, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: m.Baked.Release.Labels[0]})
	if err != nil {
		return nil, fmt.Errorf("cannot list the cluster's control planes: %w", err)
	}
	var others []string
	for _, n := range list.Items {
		if n.Name != m.Node.Init.NodeRegistration.Name {
			others = append(others, n.Name)
		}
	}
	return others, nil
}

// quorumWithout says what etcd loses with this node's member.
func quorumWithout(ctx context.Context, m *node.Machine, c kubernetes.Interface) (cluster.Loss, error) {
	urls, err := node.EtcdURLs(ctx, c)
	if err != nil {
		return cluster.Loss{}, err
	}
	e, err := cluster.ConnectEtcd(m.Host, m.Node.Cluster.CertificatesDir, urls...)
	if err != nil {
		return cluster.Loss{}, err
	}
	defer e.Close()
	list, err := e.Members(ctx)
	if err != nil {
		return cluster.Loss{}, err
	}
	var others []cluster.Peer
	for _, member := range list {
		if !member.IsLearner && !m.OwnsMember(member) {
			others = append(others, cluster.Peer{Name: member.Name, Well: e.Answers(ctx, member) == nil})
		}
	}
	loss := cluster.LossOfMember("this node", others)
	if loss.Says != "" && !loss.Ends {
		loss.Says += "; bring them back first, or say that they are gone for good: `kbuild reset NODE --force` (or `kbuild-firstboot forget NODE` here)"
	}
	return loss, nil
}
