package firstboot

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepCheckEtcd makes sure, before a member is added to a local etcd, that all
// of those that it has are well (kubeadm join phase check-etcd). Members that
// etcd-join will take out do not count.
func stepCheckEtcd() converge.Step {
	return converge.Step{
		Name: "check-etcd",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if m.Node.Cluster.Etcd.Local == nil || m.Host.Exists(node.EtcdJoinFile) {
				return true, nil // it is none of ours, or this node has begun to be part of it
			}
			e, c, err := m.Etcd(ctx)
			if err != nil {
				return false, cluster.RetryIfTemporary(err)
			}
			defer e.Close()
			_, err = deadMembers(ctx, m, e, c)
			return err == nil, cluster.RetryIfTemporary(err)
		},
		Do: func(context.Context, *node.Machine) error { return nil },
	}
}

// deadMembers are the members that go before this node's can come: one that an
// earlier machine of this name or address has left, and those that do not
// answer and whose Node an administrator has deleted. Another one that does not
// answer is an error that asks to wait.
func deadMembers(ctx context.Context, m *node.Machine, e *cluster.Etcd, c kubernetes.Interface) ([]cluster.Member, error) {
	members, err := e.Members(ctx)
	if err != nil {
		return nil, err
	}
	self := m.Node.Init.NodeRegistration.Name
	var dead []cluster.Member
	for _, member := range members {
		atOurs := m.OwnsMember(member)
		switch {
		case atOurs && member.Name == "":
			continue // added before a power cut: it is adopted
		case atOurs:
			dead = append(dead, member) // nothing of this machine has started yet
			continue
		}
		why := e.Answers(ctx, member)
		if why == nil && member.Name == self {
			return nil, outcome.Retry{After: outcome.Soon(), Why: fmt.Sprintf("etcd has a living member named %s at %s: another machine has this node's name; give this one another name in user-data, or stop the other", self, strings.Join(member.PeerURLs, ", "))}
		}
		if why == nil {
			continue
		}
		if member.Name == self {
			dead = append(dead, member)
			continue
		}
		if member.Name == "" {
			return nil, outcome.Retry{After: node.EtcdRetry, Why: fmt.Sprintf("another node is becoming a member of etcd (%x, %s); if it is gone for good, remove it with `etcdctl member remove %[1]x`", member.ID, strings.Join(member.PeerURLs, ", "))}
		} else {
			_, err := c.CoreV1().Nodes().Get(ctx, member.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				dead = append(dead, member)
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		return nil, outcome.Retry{After: outcome.Soon(), Why: fmt.Sprintf("etcd member %q (%x, %s) does not answer: %v; bring its node back, or say that it is gone for good: `kubectl delete node %s`", member.Name, member.ID, strings.Join(member.PeerURLs, ", "), why, member.Name)}
	}
	return dead, nil
}
