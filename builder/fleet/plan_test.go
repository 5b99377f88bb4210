package fleet

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/templates"
)

// cp and worker are nodes of a version that are well.
func cp(name, version string) Node {
	return Node{Name: name, Version: version, ControlPlane: true, Ready: true, Pods: map[string]bool{templates.Etcd: true, templates.APIServer: true}}
}

func worker(name, version string) Node {
	return Node{Name: name, Version: version, Ready: true, Pods: map[string]bool{}}
}

func TestPlanOrder(t *testing.T) {
	begun, left := worker("w9", "v1.19.12"), cp("cp3", "v1.19.12")
	begun.Cordoned, begun.Unschedulable = "2026-01-01T00:00:00Z", true
	left.Cordoned, left.Unschedulable = "2026-01-01T00:00:00Z", true
	c := Cluster{Version: "v1.20.15", Nodes: []Node{cp("cp1", "v1.20.15"), cp("cp2", "v1.19.12"), left, worker("w1", "v1.19.12"), begun}}
	p, err := MakePlan(c, "")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, n := range p.Nodes {
		order = append(order, n.Name)
	}
	if got := strings.Join(order, " "); got != "cp3 cp1 cp2 w9 w1" {
		t.Errorf("order %s", got)
	}
	if p.To != "v1.20.15" || strings.Join(p.Targets, " ") != "v1.20.15" {
		t.Errorf("to %q of %q", p.To, p.Targets)
	}
	if len(p.Nodes[1].Do) != 0 || len(p.Nodes[0].Do) != 4 || len(p.Nodes[4].Do) != 5 {
		t.Errorf("does %q, %q, %q", p.Nodes[1].Do, p.Nodes[0].Do, p.Nodes[4].Do)
	}
	if len(p.Blocked) != 0 {
		t.Errorf("blocked by %q", p.Blocked)
	}
}

func TestPlanPolicy(t *testing.T) {
	three := func(version string, nodes ...Node) Cluster { return Cluster{Version: version, Nodes: nodes} }
	for name, x := range map[string]struct {
		c       Cluster
		to      string
		targets string
		refused string
	}{
		"patch and minor": {three("v1.19.12", cp("a", "v1.19.12")), "v1.20.15", "v1.19.16 v1.20.15", ""},
		"any patch":       {three("v1.19.12", cp("a", "v1.19.12")), "v1.20.0", "v1.19.16 v1.20.15", ""},
		"same":            {three("v1.20.15", cp("a", "v1.20.15")), "v1.20.15", "v1.21.14", ""},
		"minor skipped":   {three("v1.20.15", cp("a", "v1.20.15")), "v1.37.2", "v1.21.14", "v1.21 first"},
		"downgrade":       {three("v1.20.15", cp("a", "v1.20.15")), "v1.19.12", "v1.21.14", "older"},
		"half way back":   {three("v1.20.15", cp("a", "v1.20.15"), worker("w", "v1.19.12")), "v1.19.12", "v1.20.15", "older"},
		"unknown":         {three("v1.20.15", cp("a", "v1.20.15")), "v1.38.0", "v1.21.14", "unknown Kubernetes version"},
		"no version":      {three("v1.20.15", cp("a", "v1.20.15")), "latest", "v1.21.14", "want vMAJOR.MINOR.PATCH"},
		"unknown node":    {three("v1.20.0", cp("a", "v1.20.0"), worker("w", "v1.18.3")), "v1.20.15", "", "node w runs v1.18.3"},
		"newer node":      {three("v1.19.12", cp("a", "v1.19.12"), worker("w", "v1.20.15")), "v1.19.16", "v1.20.15", "node w runs v1.20.15"},
		"kubelet behind":  {three("v1.37.0", cp("a", "v1.37.0"), worker("w", "v1.20.15")), "v1.37.2", "", "node w runs v1.20.15"},
	} {
		p, err := MakePlan(x.c, x.to)
		if got := strings.Join(p.Targets, " "); got != x.targets {
			t.Errorf("%s: targets %q, want %q", name, got, x.targets)
		}
		if x.refused == "" && err != nil || x.refused != "" && (err == nil || !strings.Contains(err.Error(), x.refused)) {
			t.Errorf("%s: %v, want %q", name, err, x.refused)
		}
	}
}

func TestPlanBack(t *testing.T) {
	c := Cluster{Version: "v1.19.12", Nodes: []Node{cp("a", "v1.19.12")}}
	if got := c.back("v1.20.15"); !strings.HasPrefix(got, "possible: etcd 3.4.13-0") {
		t.Error(got)
	}
	if got := c.back("v1.37.2"); !strings.HasPrefix(got, "not possible") || !strings.Contains(got, "3.7.0-0") {
		t.Error(got)
	}
	c.EtcdTag = "3.4.13-0"
	if got := c.back("v1.37.2"); !strings.HasPrefix(got, "possible") {
		t.Error(got)
	}
	c.EtcdTag, c.ExternalEtcd = "", true
	if got := c.back("v1.37.2"); !strings.HasPrefix(got, "possible: etcd is external") {
		t.Error(got)
	}
	if got := c.back("v1.19.12"); !strings.Contains(got, "already") {
		t.Error(got)
	}
}

func TestPlanBlocked(t *testing.T) {
	dead, booting, foreign := worker("dead", "v1.19.12"), worker("booting", "v1.19.12"), worker("foreign", "v1.19.12")
	dead.Ready, booting.Ready = false, false
	booting.Cordoned = "2026-01-01T00:00:00Z"
	foreign.Unschedulable = true
	p, err := MakePlan(Cluster{Version: "v1.19.12", Nodes: []Node{cp("a", "v1.19.12"), dead, booting, foreign}}, "v1.20.15")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Blocked) != 1 || !strings.Contains(p.Blocked[0], "node dead is not Ready") {
		t.Errorf("%q", p.Blocked)
	}
	if len(p.Notes) != 2 || !strings.Contains(p.Notes[0], "the API does not answer") || !strings.Contains(p.Notes[1], "foreign") {
		t.Errorf("%q", p.Notes)
	}
}

func TestSpare(t *testing.T) {
	nodes := func(change func(n *Node)) Cluster {
		b := cp("b", "v1.19.12")
		change(&b)
		return Cluster{Nodes: []Node{cp("a", "v1.19.12"), b, cp("c", "v1.19.12"), worker("w", "v1.19.12")}}
	}
	for name, x := range map[string]struct {
		change func(n *Node)
		want   string // when a wants to go down
	}{
		"well":       {func(*Node) {}, ""},
		"node":       {func(n *Node) { n.Ready = false }, "node b is not Ready"},
		"etcd":       {func(n *Node) { n.Pods[templates.Etcd] = false }, "pod etcd-b is not Ready"},
		"api server": {func(n *Node) { n.Pods[templates.APIServer] = false }, "pod kube-apiserver-b is not Ready"},
		"on trial":   {func(n *Node) { n.BootID, n.Cordoned = "2", "1" }, "node b has booted a new image"},
		"cordoned":   {func(n *Node) { n.BootID, n.Cordoned = "1", "1" }, ""},
		"no etcd":    {func(n *Node) { delete(n.Pods, templates.Etcd) }, "node b has no pod etcd-b"},
	} {
		c := nodes(x.change)
		err := c.checkPeers("a")
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if err := c.checkPeers("b"); err != nil {
			t.Errorf("%s: b itself may go down: %v", name, err)
		}
	}
	external := nodes(func(n *Node) { delete(n.Pods, templates.Etcd) })
	external.ExternalEtcd = true
	if err := external.checkPeers("a"); err != nil {
		t.Errorf("external etcd: %v", err)
	}
}

func TestHarm(t *testing.T) {
	ill := cp("b", "v1.19.12")
	ill.Pods[templates.Etcd] = false
	a, c, w := cp("a", "v1.19.12"), cp("c", "v1.19.12"), worker("w", "v1.19.12")
	for name, x := range map[string]struct {
		c    Cluster
		node string
		want string
	}{
		"worker":         {Cluster{Nodes: []Node{a, w}}, "w", ""},
		"last":           {Cluster{Nodes: []Node{a, w}}, "a", "last control plane"},
		"last, external": {Cluster{Nodes: []Node{a, w}, ExternalEtcd: true}, "a", "last control plane"},
		"one of three":   {Cluster{Nodes: []Node{a, c, cp("d", "v1.19.12")}}, "a", ""},
		"one of two":     {Cluster{Nodes: []Node{a, c}}, "a", ""},
		"the ill one":    {Cluster{Nodes: []Node{a, ill, c}}, "b", ""},
		"a well one":     {Cluster{Nodes: []Node{a, ill, c}}, "a", "1 are well, 2 are needed (not well: b)"},
		"external":       {Cluster{Nodes: []Node{a, ill, c}, ExternalEtcd: true}, "a", ""},
	} {
		got := x.c.harm(x.node)
		if x.want == "" && got != "" || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
	if !(Cluster{Nodes: []Node{a}}).losesAPI() || !(Cluster{Nodes: []Node{a, c}}).losesAPI() || (Cluster{Nodes: []Node{a, ill, c}}).losesAPI() {
		t.Error("the API is away with one or two members, and not with three")
	}
}
