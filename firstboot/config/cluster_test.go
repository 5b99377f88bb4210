package config

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// joining is a node that has not found its cluster yet.
func joining(t *testing.T, role string) *Node {
	return mustLoad(t, "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: "+role+"\nendpoint: 192.0.2.1\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [\"sha256:"+strings.Repeat("ab", 32)+"\"]\n")
}

// clusterDocs are what a cluster keeps, as our own first control plane writes
// it, with some text replaced.
func clusterDocs(t *testing.T, old, new string) []Document {
	t.Helper()
	n := mustLoad(t, short+"endpoint: 192.0.2.1\n")
	var docs []Document
	for name, m := range map[string]func() ([]byte, error){
		"kubeadm-config":      func() ([]byte, error) { return MarshalCluster(n, baked(t).Release) },
		"kubelet-config-1.19": func() ([]byte, error) { return MarshalKubelet(n, baked(t).Release) },
		"kube-proxy":          func() ([]byte, error) { return MarshalKubeProxy(n, baked(t).Release) },
	} {
		b, err := m()
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, Document{Source: "ConfigMap " + name, Data: []byte(strings.Replace(string(b), old, new, 1))})
	}
	return docs
}

func TestReadCluster(t *testing.T) {
	n := joining(t, "control-plane")
	c, warnings, err := ReadCluster(n, baked(t), machine(), clusterDocs(t, "", "")...)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %q", err, warnings)
	}
	in := n.In(c)
	if !in.KnowsCluster() || in.Cluster.ControlPlaneEndpoint != "192.0.2.1:6443" || in.Kubelet["clusterDomain"] != "cluster.local" || n.KnowsCluster() {
		t.Errorf("%+v", in)
	}
	if _, err := Validate(in, baked(t)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ role, old, new, want string }{
		"unknown field":     {"worker", "clusterName:", "clusterNamee:", "ConfigMap kubeadm-config:"},
		"later patch":       {"control-plane", "v1.19.12", "v1.19.16", "boot a control-plane node from an image of the cluster's version"},
		"unknown version":   {"worker", "v1.19.12", "v1.99.0", "does not know"},
		"older than us":     {"worker", "v1.19.12", "v1.18.0", "the cluster's version"},
		"address in subnet": {"worker", "10.96.0.0/12", "192.0.0.0/16", "lies in the service subnet"},
	} {
		_, _, err := ReadCluster(joining(t, c.role), baked(t), machine(), clusterDocs(t, c.old, c.new)...)
		var p Problems
		if !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want one with %q", name, err, c.want)
		}
	}
	for role, v := range map[string]string{"worker": "v1.19.16", "control-plane": "v1.19.12"} {
		if _, _, err := ReadCluster(joining(t, role), baked(t), machine(), clusterDocs(t, "v1.19.12", v)...); err != nil {
			t.Errorf("a %s of a cluster of %s: %v", role, v, err)
		}
	}
	if _, _, err := ReadCluster(n, baked(t), machine()); err == nil {
		t.Error("a cluster that keeps nothing is taken")
	}
}

// What is forgotten is gone, and the node is as valid as before.
func TestForget(t *testing.T) {
	crt, key, _ := authority(t, true)
	indent := func(s string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n" }
	for _, n := range []*Node{
		joining(t, "worker"),
		mustLoad(t, short+"token: abcdef.0123456789abcdef\ncertificateKey: "+strings.Repeat("0123456789abcdef", 4)+"\npki:\n  ca.crt: |\n"+indent(crt)+"  ca.key: |\n"+indent(key)),
	} {
		f := n.ScrubSecrets()
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "0123456789abcdef") || strings.Contains(string(b), "PRIVATE KEY") || !f.Scrubbed {
			t.Errorf("not forgotten: %s", b)
		}
		var back Node
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if _, err := Validate(&back, baked(t)); err != nil {
			t.Errorf("forgotten, it is not valid: %v", err)
		}
		if n.Scrubbed || n.Role.Joins() && n.Join.Discovery.BootstrapToken.Token == "" {
			t.Error("Forget changed the node itself")
		}
	}
}
