package fleet

import (
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/templates"
)

// checkPeers returns why control plane name may not go down now, or nil. The etcd and
// API server of all others must be Ready: of three etcd members, two are a quorum
// only while both are healthy.
func (c Cluster) checkPeers(name string) error {
	var ill []string
	for _, n := range c.controlPlanes() {
		if n.Name == name {
			continue
		}
		if !n.Ready {
			ill = append(ill, "node "+n.Name+" is not Ready")
			continue
		}
		if n.Cordoned != "" && n.Cordoned != n.BootID {
			ill = append(ill, "node "+n.Name+" has booted a new image, and has not uncordoned itself yet")
			continue
		}
		want := []string{templates.APIServer}
		if !c.ExternalEtcd {
			want = append(want, templates.Etcd)
		}
		for _, pod := range want {
			if ready, has := n.Pods[pod]; !has {
				ill = append(ill, fmt.Sprintf("node %s has no pod %s-%[1]s", n.Name, pod))
			} else if !ready {
				ill = append(ill, fmt.Sprintf("pod %s-%s is not Ready", pod, n.Name))
			}
		}
	}
	if len(ill) > 0 {
		return fmt.Errorf("control plane %s may not go down now: %s", name, strings.Join(ill, ", "))
	}
	return nil
}

// members is how many etcd members the cluster's control planes have.
func (c Cluster) members() int {
	members := 0
	for _, n := range c.Nodes {
		if _, has := n.Pods[templates.Etcd]; has {
			members++
		}
	}
	return members
}

// losesAPI says whether the API is unavailable while a control plane boots: it is
// the only one, or etcd has no quorum without it.
func (c Cluster) losesAPI() bool {
	if c.ExternalEtcd {
		return len(c.controlPlanes()) == 1
	}
	m := c.members()
	return m-1 < cluster.Quorum(m)
}

// harm says, in words, what a cluster loses if a node is gone for good; empty if
// nothing.
func (c Cluster) harm(name string) string {
	n, _ := c.node(name)
	if !n.ControlPlane {
		return ""
	}
	if len(c.controlPlanes()) == 1 {
		return cluster.LossOfLast("node "+name, !c.ExternalEtcd).Says
	}
	if c.ExternalEtcd {
		return ""
	}
	var others []cluster.Peer
	for _, o := range c.controlPlanes() {
		if ready, has := o.Pods[templates.Etcd]; has && o.Name != name {
			others = append(others, cluster.Peer{Name: o.Name, Well: ready && o.Ready})
		}
	}
	return cluster.LossOfMember("node "+name, others).Says
}
