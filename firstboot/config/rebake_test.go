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

// rebaked loads a node with one image's configuration and user-data, and lays
// another image's under it.
func rebaked(t *testing.T, before, user, after string) (was, is *Node, changed, kept []string) {
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
	is, changed, kept, err = was.Rebake(baked(t), machine(), doc(after))
	if err != nil {
		t.Fatal(err)
	}
	return was, is, changed, kept
}

// TestRebake: what an image says of its own is the image's: the next one's
// counts, and what only the image before said is gone. User-data stays over
// both, and defaults come back.
func TestRebake(t *testing.T) {
	before := bakedCluster + "networking:\n  dnsDomain: one.example\napiServer:\n  timeoutForControlPlane: 8m0s\n  extraArgs:\n    v: \"2\"\n    audit-log-maxage: \"7\"\n    max-requests-inflight: \"100\"\nscheduler:\n  extraArgs:\n    v: \"4\"\n" +
		"---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\ncgroupDriver: cgroupfs\nevictionHard:\n  memory.available: 1Gi\n"
	user := short + "---\n" + bakedCluster + "apiServer:\n  extraArgs:\n    max-requests-inflight: \"200\"\n"
	after := bakedCluster + "networking:\n  dnsDomain: two.example\napiServer:\n  extraArgs:\n    v: \"3\"\n    max-requests-inflight: \"300\"\n    profiling: \"false\"\n  extraVolumes:\n  - {name: a, hostPath: /a, mountPath: /a}\n" +
		"---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nevictionHard:\n  memory.available: 2Gi\n"
	was, is, changed, kept := rebaked(t, before, user, after)
	if d := cmp.Diff(map[string]string{"v": "3", "profiling": "false", "max-requests-inflight": "200", "authorization-mode": "Node,RBAC"}, is.Cluster.APIServer.ExtraArgs); d != "" {
		t.Errorf("the API server's arguments (-want +got):\n%s", d)
	}
	if len(is.Cluster.Scheduler.ExtraArgs) != 0 || len(is.Cluster.APIServer.ExtraVolumes) != 1 || is.Cluster.APIServer.TimeoutForControlPlane.Duration != defaultTimeout {
		t.Errorf("%+v", is.Cluster)
	}
	if is.Cluster.Networking.DNSDomain != "one.example" || !slices.Equal(kept, []string{"cluster.networking.dnsDomain"}) {
		t.Errorf("DNS domain %q, kept %q", is.Cluster.Networking.DNSDomain, kept)
	}
	if _, ok := is.Kubelet["maxPods"]; ok || is.Kubelet["cgroupDriver"] != "systemd" || !same(is.Kubelet["evictionHard"], map[string]string{"memory.available": "2Gi"}) {
		t.Errorf("kubelet: %v", is.Kubelet)
	}
	want := []string{"cluster.apiServer.extraArgs.audit-log-maxage", "cluster.apiServer.extraArgs.profiling", "cluster.apiServer.extraArgs.v", "cluster.apiServer.extraVolumes",
		"cluster.apiServer.timeoutForControlPlane", "cluster.scheduler.extraArgs.v", "kubelet.cgroupDriver", "kubelet.evictionHard.memory.available", "kubelet.maxPods"}
	if !slices.Equal(changed, want) {
		t.Errorf("changed %q, want %q", changed, want)
	}
	if _, err := Validate(is, baked(t)); err != nil {
		t.Error(err)
	}
	// The image before, booted again, makes the node what it was.
	back, _, _, err := is.Rebake(baked(t), machine(), Document{Source: BakedSource, Data: []byte(before), Baked: true})
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

// TestRebakeSame: the same image, and images without a word of their own,
// change nothing.
func TestRebakeSame(t *testing.T) {
	own := bakedCluster + "apiServer:\n  extraArgs:\n    v: \"2\"\n"
	for before, after := range map[string]string{own: own, "": "", "# nothing\n": ""} {
		was, is, changed, kept := rebaked(t, before, short, after)
		if d := cmp.Diff(generics(t, was), generics(t, is)); d != "" || len(changed)+len(kept) > 0 {
			t.Errorf("changed %q, kept %q (-was +is):\n%s", changed, kept, d)
		}
	}
}

// TestRebakeJoined: a node that joins has the cluster's configuration; the
// image's word on its own registration counts.
func TestRebakeJoined(t *testing.T) {
	user := "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nname: w1\nendpoint: 10.0.0.1:6443\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [sha256:" + strings.Repeat("ab", 32) + "]\n"
	after := bakedCluster + "apiServer:\n  extraArgs:\n    v: \"3\"\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: JoinConfiguration\nnodeRegistration:\n  name: other\n  kubeletExtraArgs:\n    v: \"5\"\n"
	_, is, changed, kept := rebaked(t, "", user, after)
	if is.Init.NodeRegistration.KubeletExtraArgs["v"] != "5" || is.Init.NodeRegistration.Name != "w1" || len(is.Cluster.APIServer.ExtraArgs) != 0 {
		t.Errorf("%+v", is)
	}
	if !slices.Equal(changed, []string{"init.nodeRegistration.kubeletExtraArgs.v"}) {
		t.Errorf("changed %q, kept %q", changed, kept)
	}
}

// TestRebakeRefuses: a bad file in an image is told with its line.
func TestRebakeRefuses(t *testing.T) {
	n := mustLoad(t, short)
	_, _, _, err := n.Rebake(baked(t), machine(), Document{Source: BakedSource, Data: []byte(bakedCluster + "apiServr: {}\n"), Baked: true})
	if err == nil || !strings.Contains(err.Error(), BakedSource) || !strings.Contains(err.Error(), "3") {
		t.Errorf("%v", err)
	}
}

// TestLayBaked: the cluster's configuration gets the image's words, and what
// its administrators wrote stays.
func TestLayBaked(t *testing.T) {
	_, n, _, _ := rebaked(t, "", short, bakedCluster+"apiServer:\n  extraArgs:\n    v: \"3\"\n")
	for in, want := range map[string]string{
		"apiServer:\n  extraArgs:\n    v: \"2\"\n    audit-log-path: /a\nclusterName: c\n": "apiServer:\n  extraArgs:\n    v: \"3\"\n    audit-log-path: /a\nclusterName: c\n",
		"clusterName: c\n": "clusterName: c\napiServer:\n  extraArgs:\n    v: \"3\"\n",
	} {
		out, err := n.LayBaked([]byte(in))
		var a, b any
		if err == nil {
			err = yaml.Unmarshal(out, &a)
		}
		if err2 := yaml.Unmarshal([]byte(want), &b); err != nil || err2 != nil || !same(a, b) {
			t.Errorf("%q: %s, %v", in, out, err)
		}
	}
	same := "apiServer:\n    extraArgs:\n        v: \"3\"\n"
	if out, err := n.LayBaked([]byte(same)); err != nil || string(out) != same {
		t.Errorf("nothing to do: %s, %v", out, err)
	}
}
