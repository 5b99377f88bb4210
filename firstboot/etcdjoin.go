package firstboot

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/templates"
)

type etcdJoin struct {
	// InitialCluster are the members as this one finds them at its first start,
	// itself included.
	InitialCluster []templates.EtcdMember `json:"initialCluster"`
	// Others are the client URLs of the members that were there before: once
	// begun, this node's API server needs no other one to come up.
	Others []string `json:"others"`
	// Joined says that the member runs and has a vote.
	Joined bool `json:"joined"`
}

// stepEtcdJoin makes this node a member of the cluster's local etcd (kubeadm
// join phase control-plane-join etcd): what is dead of ours goes, our member is
// added as a learner, its static pod starts, and when it has caught up it gets
// its vote. Cut anywhere, the next boot goes on: a member that was added and
// has not started is adopted.
func stepEtcdJoin() converge.Step {
	return converge.Step{
		Name: "etcd-join",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			if m.Node.Cluster.Etcd.Local == nil {
				return true, nil
			}
			state, err := readEtcdJoin(m)
			if err != nil || !state.Joined {
				return false, err
			}
			ms, err := etcdManifest(m, state)
			return err == nil && manifestsDone(m, ms), err
		},
		Do: func(ctx context.Context, m *node.Machine) error { return cluster.RetryIfTemporary(joinEtcd(ctx, m)) },
	}
}

func readEtcdJoin(m *node.Machine) (etcdJoin, error) {
	return host.ReadJSON[etcdJoin](m.Host, node.EtcdJoinFile)
}

func writeEtcdJoin(m *node.Machine, state etcdJoin) error {
	return m.Host.WriteJSON(node.EtcdJoinFile, state)
}

func etcdManifest(m *node.Machine, state etcdJoin) ([]manifest, error) {
	p := podParams(m)
	p.EtcdMembers = state.InitialCluster
	return manifests(m, templates.EtcdPod(p))
}

func joinEtcd(ctx context.Context, m *node.Machine) error {
	state, err := readEtcdJoin(m)
	if err != nil {
		return err
	}
	if state.Joined { // the manifest is of another image
		return startEtcd(m, state)
	}
	e, err := etcdForJoin(ctx, m, state)
	if err != nil {
		return err
	}
	defer e.Close()
	members, err := e.Members(ctx)
	if err != nil {
		return err
	}
	at := func(member cluster.Member) bool { return m.OwnsMember(member) }
	if !slices.ContainsFunc(members, at) {
		if err := e.Add(ctx, cluster.PeerURL(m.Node.Init.LocalAPIEndpoint.AdvertiseAddress)); err != nil {
			return err
		}
		if members, err = e.Members(ctx); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(members, at)
	if i < 0 {
		return outcome.Retry{After: node.EtcdRetry, Why: "etcd does not list this node's member yet"}
	}
	ours := members[i]
	if ours.Name == "" || len(state.InitialCluster) == 0 {
		// A member does not start when the list it is given is not the one that
		// the others have: as long as it has not started, it follows them.
		state.InitialCluster = initialCluster(members, ours.ID, m.Node.Init.NodeRegistration.Name)
		state.Others = nil
		for _, member := range members {
			if member.ID != ours.ID && !member.IsLearner {
				state.Others = append(state.Others, member.Clients...)
			}
		}
		if err := writeEtcdJoin(m, state); err != nil {
			return err
		}
	}
	if err := startEtcd(m, state); err != nil {
		return err
	}
	switch {
	case ours.Name == "":
		return outcome.Retry{After: node.EtcdRetry, Why: "this node's etcd has not started yet; its log is in /var/log/pods"}
	case ours.IsLearner:
		if err := e.Promote(ctx, ours); err != nil {
			return err
		}
	}
	if err := e.Answers(ctx, ours); err != nil {
		return outcome.Retry{After: node.EtcdRetry, Why: fmt.Sprintf("this node's etcd does not answer yet: %v", err)}
	}
	state.Joined = true
	return writeEtcdJoin(m, state)
}

// etcdForJoin connects to the other members; before anything is added, the dead
// ones go.
func etcdForJoin(ctx context.Context, m *node.Machine, state etcdJoin) (*cluster.Etcd, error) {
	if len(state.Others) > 0 {
		return cluster.ConnectEtcd(m.Host, m.Node.Cluster.CertificatesDir, state.Others...)
	}
	e, c, err := m.Etcd(ctx)
	if err != nil || len(state.InitialCluster) > 0 {
		return e, err
	}
	dead, err := deadMembers(ctx, m, e, c)
	for _, member := range dead {
		m.Host.Log.Warn("removing a dead member of etcd", slog.String("name", member.Name), slog.String("url", strings.Join(member.PeerURLs, ",")))
		if err = e.Remove(ctx, member); err != nil {
			break
		}
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// initialCluster is the list of members for the flag --initial-cluster. Our own
// does not know its name before it has started, and neither may others.
func initialCluster(members []cluster.Member, ours uint64, name string) []templates.EtcdMember {
	var list []templates.EtcdMember
	for _, m := range members {
		n := m.Name
		switch {
		case m.ID == ours:
			n = name
		case n == "":
			n = fmt.Sprintf("%x", m.ID)
		}
		for _, u := range m.PeerURLs {
			list = append(list, templates.EtcdMember{Name: n, PeerURL: u})
		}
	}
	return list
}

// startEtcd writes the static pod of this node's member.
func startEtcd(m *node.Machine, state etcdJoin) error {
	ms, err := etcdManifest(m, state)
	if err != nil {
		return err
	}
	return writeManifests(m, ms)
}
