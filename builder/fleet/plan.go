package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// Plan is what an upgrade would do.
type Plan struct {
	Cluster string     `json:"cluster"`           // the version in kubeadm-config
	Targets []string   `json:"targets"`           // the versions that the cluster can be upgraded to
	To      string     `json:"to,omitempty"`      // the one that is planned
	Nodes   []NodePlan `json:"nodes"`             // in the order in which they are upgraded
	Back    string     `json:"back,omitempty"`    // whether a rollback is possible, in words
	Notes   []string   `json:"notes,omitempty"`   // what an operator should know before
	Blocked []string   `json:"blocked,omitempty"` // what must be repaired before
	// Removed are the APIs that are in use and that the version does not serve.
	Removed []RemovedAPI `json:"removedAPIs,omitempty"`
}

// RemovedAPI is an API that the planned version does not serve any more.
type RemovedAPI struct {
	DeprecatedAPI
	Remedy string `json:"remedy"`
}

// NodePlan is what an upgrade does with one node.
type NodePlan struct {
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Version string   `json:"version"`
	Ready   bool     `json:"ready"`
	Do      []string `json:"do,omitempty"` // nothing, if it already runs the version
}

// MakePlan plans the upgrade to version to; empty is the newest that is possible.
func MakePlan(c Cluster, to string) (Plan, error) {
	p := Plan{Cluster: c.Version, Targets: c.targets(), To: to}
	if to == "" && len(p.Targets) > 0 {
		p.To = p.Targets[len(p.Targets)-1]
	} else if to != "" {
		r, err := c.checkTarget(to)
		if err != nil {
			return p, err
		}
		p.To = r.Version
	}
	for _, n := range c.upgradeOrder(p.To) {
		p.Nodes = append(p.Nodes, NodePlan{n.Name, n.Role(), n.Version, n.Ready, doing(n, p.To)})
	}
	if p.To == "" {
		return p, nil
	}
	p.Back = c.back(p.To)
	p.Notes = c.notes(p.To)
	p.Removed = c.removed(p.To)
	p.Blocked = c.blocked(p.To)
	return p, nil
}

// checkTarget returns the release of a version that the cluster can be upgraded to,
// or why it cannot. The rules are those of kubeadm (EnforceVersionPolicies), applied
// to the cluster and to each node: no minor release is skipped, there is no
// downgrade, and an unknown version is an error.
func (c Cluster) checkTarget(to string) (images.Release, error) {
	r, err := images.Assume(to)
	if err != nil {
		return r, err
	}
	if err := r.CheckUpgradeFrom(c.Version); err != nil {
		return r, fmt.Errorf("the cluster runs %s: %w", c.Version, err)
	}
	for _, n := range c.Nodes {
		if err := r.CheckUpgradeFrom(n.Version); err != nil {
			return r, fmt.Errorf("node %s runs %s: %w", n.Name, n.Version, err)
		}
	}
	return r, nil
}

// targets are the versions that checkTarget allows and that change something, oldest
// first.
func (c Cluster) targets() []string {
	var all []string
	for _, v := range c.versions() {
		all = append(all, append(images.Targets(v), v)...)
	}
	slices.SortFunc(all, byVersion)
	return slices.DeleteFunc(slices.Compact(all), func(to string) bool {
		_, err := c.checkTarget(to)
		return err != nil || !slices.ContainsFunc(c.versions(), func(v string) bool { return v != to })
	})
}

// versions are those of the cluster and its nodes.
func (c Cluster) versions() []string {
	all := []string{c.Version}
	for _, n := range c.Nodes {
		all = append(all, n.Version)
	}
	slices.SortFunc(all, byVersion)
	return slices.Compact(all)
}

func byVersion(a, b string) int {
	if r, err := images.Assume(a); err == nil && r.Before(b) {
		return -1
	}
	if r, err := images.Assume(b); err == nil && r.Before(a) {
		return 1
	}
	return cmp.Compare(a, b)
}

// upgradeOrder is the order in which nodes are upgraded: the control planes, then the
// workers; of each, first those that an earlier run has begun, then by name.
func (c Cluster) upgradeOrder(to string) []Node {
	rank := func(n Node) int {
		rank := 0
		if !n.ControlPlane {
			rank = 2
		}
		if n.Cordoned == "" {
			rank++
		}
		return rank
	}
	nodes := slices.Clone(c.Nodes)
	slices.SortStableFunc(nodes, func(a, b Node) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Name, b.Name)) })
	return nodes
}

// doing is what an upgrade does with a node, in words.
func doing(n Node, to string) []string {
	if n.Version == to || to == "" {
		return nil
	}
	do := []string{"stage the image in its other slot"}
	if !n.Unschedulable {
		do = append(do, "cordon it")
	}
	return append(do, "drain it", "reboot into "+to, "wait until it is Ready and uncordoned")
}

// back says whether the nodes can be rolled back to their present version.
func (c Cluster) back(to string) string {
	old := c.Version
	for _, n := range c.controlPlanes() {
		if n.Version != to {
			old = n.Version
			break
		}
	}
	from, err := images.Assume(old)
	next, err2 := images.Assume(to)
	switch {
	case err != nil || err2 != nil || from.Version == next.Version:
		return "the control planes already run " + to
	case c.ExternalEtcd:
		return fmt.Sprintf("possible: etcd is external, and is not upgraded; a node that does not become healthy in %s falls back to %s by itself", to, old)
	}
	before, after := cmp.Or(c.EtcdTag, from.Etcd.Tag), cmp.Or(c.EtcdTag, next.Etcd.Tag)
	from.Etcd.Tag = before
	if from.ReadsEtcd(after) {
		return fmt.Sprintf("possible: etcd %s of %s reads what etcd %s of %s writes; a node that does not become healthy falls back by itself", before, old, after, to)
	}
	return fmt.Sprintf("not possible once etcd %s of %s runs on every control plane, since etcd %s of %s cannot read what it writes; take a snapshot of etcd first (etcdctl snapshot save)", after, to, before, old)
}

func (c Cluster) notes(to string) []string {
	var notes []string
	if c.DeprecatedUnknown != "" {
		notes = append(notes, "whether APIs are in use that "+to+" does not serve is not known: "+c.DeprecatedUnknown)
	}
	if c.losesAPI() && slices.ContainsFunc(c.controlPlanes(), func(n Node) bool { return n.Version != to }) {
		notes = append(notes, fmt.Sprintf("with %d control plane(s), the API does not answer while one of them boots; pods on the workers keep running", len(c.controlPlanes())))
	}
	for _, n := range c.Nodes {
		switch {
		case n.Unschedulable && n.Cordoned == "":
			notes = append(notes, "node "+n.Name+" was cordoned by someone else, and stays cordoned")
		case n.Cordoned != "" && n.Cordoned == n.BootID:
			notes = append(notes, "node "+n.Name+" was left cordoned by a run that was interrupted; `kbuild upgrade apply` resumes with it, and uncordons it")
		}
	}
	return notes
}

// removed are the APIs in use that version to does not serve.
func (c Cluster) removed(to string) []RemovedAPI {
	rel, err := images.Assume(to)
	if err != nil {
		return nil
	}
	var all []RemovedAPI
	for _, d := range c.Deprecated {
		if rel.Reached(d.Removed) {
			all = append(all, RemovedAPI{d, d.remedy()})
		}
	}
	return all
}

// blocked is what prevents an upgrade.
func (c Cluster) blocked(to string) []string {
	var why []string
	for _, n := range c.Nodes {
		switch {
		case n.Version == to || n.Ready || n.Cordoned != "": // one that was cordoned may be booting
		default:
			why = append(why, fmt.Sprintf("node %s is not Ready: repair it, or remove it from the cluster (kbuild reset %[1]s --force)", n.Name))
		}
	}
	if len(c.controlPlanes()) == 0 {
		why = append(why, "no node is a control plane: "+strings.Join(c.names(), ", "))
	}
	return why
}

func (c Cluster) names() []string {
	var names []string
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names
}
