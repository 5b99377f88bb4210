package fleet

import (
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/templates"
)

// spare says why control plane name may not go down now; nil is that the others
// carry the cluster meanwhile as well as they can. The others' etcd and API
// server must all be Ready: of three members of etcd two are a quorum only
// while both are well.
func (c Cluster) spare(name string) error {
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
			ill = append(ill, "the boot of node "+n.Name+" may still come out badly: it has not uncordoned it yet")
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

// members are how many members etcd has on the cluster's control planes.
func (c Cluster) members() int {
	members := 0
	for _, n := range c.Nodes {
		if _, has := n.Pods[templates.Etcd]; has {
			members++
		}
	}
	return members
}

// silent says whether the API is away while one of its control planes boots: it
// is the only one, or etcd has no quorum without it.
func (c Cluster) silent() bool {
	if c.ExternalEtcd {
		return len(c.controlPlanes()) == 1
	}
	m := c.members()
	return m-1 < m/2+1
}

// harm says, in words, what a cluster loses with a node for good; empty is
// nothing that it needs.
func (c Cluster) harm(name string) string {
	n, _ := c.node(name)
	if !n.ControlPlane {
		return ""
	}
	if len(c.controlPlanes()) == 1 {
		return "node " + name + " is the cluster's last control plane: with it the cluster ends, and all that its API holds is lost"
	}
	if c.ExternalEtcd {
		return ""
	}
	voters, well := 0, 0
	var ill []string
	for _, o := range c.controlPlanes() {
		ready, has := o.Pods[templates.Etcd]
		if o.Name == name || !has {
			continue
		}
		voters++
		if ready && o.Ready {
			well++
		} else {
			ill = append(ill, o.Name)
		}
	}
	switch need := voters/2 + 1; {
	case voters == 0:
		return "node " + name + " holds the cluster's only member of etcd: with it all that the API holds is lost"
	case well < need:
		return fmt.Sprintf("without node %s etcd has no quorum: of the %d other members %d are well, %d are needed (not Ready: %s)", name, voters, well, need, strings.Join(ill, ", "))
	}
	return ""
}
