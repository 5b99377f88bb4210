package config

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const bakedCluster = `apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
`

// applied loads a node with one image's configuration and user-data, and lays
// another image's under it.
func applied(t *testing.T, before, user, after string) (was, is *Node, changed, kept []string) {
	t.Helper()
	doc := func(text string) Document {
		return Document{Source: BakedSource, Data: []byte(text), Baked: true}
	}
	docs := []Document{{Source: "user-data", Data: []byte(user)}}
	if before != "" {
		docs = append([]Document{doc(before)}, docs...)
	}
	n, _, err := Load(baked(t), machine(), docs...)
	if err != nil {
		t.Fatal(err)
	}
	// As it comes from the disk.
	b, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	was = &Node{}
	if err := json.Unmarshal(b, was); err != nil {
		t.Fatal(err)
	}
	is, changed, kept, err = was.ApplyImageConfig(baked(t), machine(), doc(after))
	if err != nil {
		t.Fatal(err)
	}
	return was, is, changed, kept
}

// TestApplyImageConfig: what an image says of its own is the image's: the next one's
// counts, and what only the image before said is gone. User-data stays over
// both, and defaults come back.
func TestApplyImageConfig(t *testing.T) {
	before := bakedCluster + "networking:\n  dnsDomain: one.example\napiServer:\n  timeoutForControlPlane: 8m0s\n  extraArgs:\n    v: \"2\"\n    audit-log-maxage: \"7\"\n    max-requests-inflight: \"100\"\nscheduler:\n  extraArgs:\n    v: \"4\"\n" +
		"---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nhealthzPort: 10299\nevictionHard:\n  memory.available: 1Gi\n"
	user := short + "---\n" + bakedCluster + "apiServer:\n  extraArgs:\n    max-requests-inflight: \"200\"\n"
	after := bakedCluster + "networking:\n  dnsDomain: two.example\napiServer:\n  extraArgs:\n    v: \"3\"\n    max-requests-inflight: \"300\"\n    profiling: \"false\"\n  extraVolumes:\n  - {name: a, hostPath: /a, mountPath: /a}\n" +
		"---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nevictionHard:\n  memory.available: 2Gi\n"
	was, is, changed, kept := applied(t, before, user, after)
	if d := cmp.Diff(Args{"v": {"3"}, "profiling": {"false"}, "max-requests-inflight": {"200"}, "authorization-mode": {"Node,RBAC"}}, is.Cluster.APIServer.ExtraArgs); d != "" {
		t.Errorf("the API server's arguments (-want +got):\n%s", d)
	}
	if len(is.Cluster.Scheduler.ExtraArgs) != 0 || len(is.Cluster.APIServer.ExtraVolumes) != 1 || is.Cluster.APIServer.TimeoutForControlPlane.Duration != defaultTimeout {
		t.Errorf("%+v", is.Cluster)
	}
	if is.Cluster.Networking.DNSDomain != "one.example" || !slices.Equal(kept, []string{"cluster.networking.dnsDomain"}) {
		t.Errorf("DNS domain %q, kept %q", is.Cluster.Networking.DNSDomain, kept)
	}
	if _, ok := is.Kubelet["maxPods"]; ok || !same(is.Kubelet["healthzPort"], 10248) || !same(is.Kubelet["evictionHard"], map[string]string{"memory.available": "2Gi"}) {
		t.Errorf("kubelet: %v", is.Kubelet)
	}
	want := []string{"cluster.apiServer.extraArgs.audit-log-maxage", "cluster.apiServer.extraArgs.profiling", "cluster.apiServer.extraArgs.v", "cluster.apiServer.extraVolumes",
		"cluster.apiServer.timeoutForControlPlane", "cluster.scheduler.extraArgs.v", "kubelet.evictionHard.memory.available", "kubelet.healthzPort", "kubelet.maxPods"}
	if !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if _, err := Validate(is, baked(t)); err != nil {
		t.Error(err)
	}
	// The image before, booted again, makes the node what it was.
	back, _, _, err := is.ApplyImageConfig(baked(t), machine(), Document{Source: BakedSource, Data: []byte(before), Baked: true})
	if err != nil {
		t.Fatal(err)
	}
	was.Sources, back.Sources = nil, nil // lines and order of defaults are as good
	if d := cmp.Diff(generics(t, was), generics(t, back)); d != "" {
		t.Errorf("back again (-was +is):\n%s", d)
	}
}

func generics(t *testing.T, n *Node) map[string]any {
	t.Helper()
	m, err := generic(n)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestApplySameImageConfig: the same image, and images without a word of their own,
// change nothing.
func TestApplySameImageConfig(t *testing.T) {
	own := bakedCluster + "apiServer:\n  extraArgs:\n    v: \"2\"\n"
	for before, after := range map[string]string{own: own, "": "", "# nothing\n": ""} {
		was, is, changed, kept := applied(t, before, short, after)
		if d := cmp.Diff(generics(t, was), generics(t, is)); d != "" || len(changed)+len(kept) > 0 {
			t.Errorf("changed %q, kept %q (-was +is):\n%s", changed, kept, d)
		}
	}
}

// TestApplyImageConfigJoined: a node that joins has the cluster's configuration; the
// image's word on its own registration counts.
func TestApplyImageConfigJoined(t *testing.T) {
	user := "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nname: w1\nendpoint: 10.0.0.1:6443\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [sha256:" + strings.Repeat("ab", 32) + "]\n"
	after := bakedCluster + "apiServer:\n  extraArgs:\n    v: \"3\"\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: JoinConfiguration\nnodeRegistration:\n  name: other\n  kubeletExtraArgs:\n    v: \"5\"\n"
	_, is, changed, kept := applied(t, "", user, after)
	if is.Init.NodeRegistration.KubeletExtraArgs.Get("v") != "5" || is.Init.NodeRegistration.Name != "w1" || len(is.Cluster.APIServer.ExtraArgs) != 0 {
		t.Errorf("%+v", is)
	}
	if !slices.Equal(changed, []string{"init.nodeRegistration.kubeletExtraArgs.v"}) {
		t.Errorf("changed %q, kept %q", changed, kept)
	}
}

// TestApplyImageConfigRefuses: a bad file in an image is told with its line.
func TestApplyImageConfigRefuses(t *testing.T) {
	n := mustLoad(t, short)
	_, _, _, err := n.ApplyImageConfig(baked(t), machine(), Document{Source: BakedSource, Data: []byte(bakedCluster + "apiServr: {}\n"), Baked: true})
	if err == nil || !strings.Contains(err.Error(), BakedSource) || !strings.Contains(err.Error(), "3") {
		t.Errorf("%v", err)
	}
}

// TestOverlayCluster: the cluster's configuration gets the image's words while an image
// says them, and what its administrators wrote stays.
func TestOverlayCluster(t *testing.T) {
	image := func(args string) *Node {
		if args == "" {
			return mustLoad(t, short)
		}
		_, n, _, _ := applied(t, "", short, bakedCluster+"apiServer:\n  extraArgs:\n"+args)
		return n
	}
	two, three, none := image("    v: \"2\"\n"), image("    v: \"3\"\n    audit/log: x\n"), image("")
	for name, c := range map[string]struct {
		have   string
		images []*Node
		edit   func(string) string // before the last
		want   string
	}{
		"over over":         {"apiServer: {extraArgs: {v: \"9\", audit-log-path: /a}}\nclusterName: c\n", []*Node{two}, nil, "apiServer: {extraArgs: {v: \"2\", audit-log-path: /a}}\nclusterName: c\n"},
		"where nothing was": {"clusterName: c\n", []*Node{three}, nil, "clusterName: c\napiServer: {extraArgs: {v: \"3\", audit/log: x}}\n"},
		"taken back":        {"apiServer: {extraArgs: {v: \"9\"}}\nclusterName: c\n", []*Node{two, three, none}, nil, "apiServer: {extraArgs: {v: \"9\"}}\nclusterName: c\n"},
		"nothing was there": {"clusterName: c\n", []*Node{three, none}, nil, "clusterName: c\n"},
		"one of two":        {"clusterName: c\n", []*Node{three, two}, nil, "clusterName: c\napiServer: {extraArgs: {v: \"2\"}}\n"},
		"edited since": {"clusterName: c\n", []*Node{two, none}, func(s string) string { return strings.Replace(s, "\"2\"", "\"7\"", 1) },
			"clusterName: c\napiServer: {extraArgs: {v: \"7\"}}\n"},
		"the cluster's first": {"", []*Node{two, none}, func(string) string { return "clusterName: c\napiServer: {extraArgs: {v: \"2\"}}\n" }, "clusterName: c\n"},
	} {
		doc, over := []byte(c.have), Overlay(nil)
		for i, n := range c.images {
			if i > 0 && i == len(c.images)-1 && c.edit != nil {
				doc = []byte(c.edit(string(doc)))
			}
			var err error
			if doc, over, err = n.OverlayCluster(doc, over); err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(over) // as it is kept
			if err == nil {
				over = nil
				err = json.Unmarshal(b, &over)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var a, b any
		if err := yaml.Unmarshal(doc, &a); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(c.want), &b); err != nil || !same(a, b) {
			t.Errorf("%s:\n%s, want\n%s, %v", name, doc, c.want, err)
		}
	}
	unchanged := "apiServer:\n    extraArgs:\n        v: \"2\"\n"
	if out, _, err := two.OverlayCluster([]byte(unchanged), nil); err != nil || string(out) != unchanged {
		t.Errorf("nothing to do: %s, %v", out, err)
	}
	joined := mustLoad(t, short)
	joined.Role = RoleControlPlane
	over := Overlay{"/clusterName": {Value: "c"}}
	if out, l, err := joined.OverlayCluster([]byte("clusterName: c\n"), over); err != nil || string(out) != "clusterName: c\n" || len(l) != 1 {
		t.Errorf("a control plane that joined took back what is not its: %s, %v, %v", out, l, err)
	}
}
