package firstboot

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

// oracleDoc is a configuration of testdata/oracle, which is v1beta2, as a version
// with a newer config API wants it from its users: in its newest, without what
// came to its end, and with the patches directory that was a flag. No code of
// kbuild's takes part: it is judged.
func oracleDoc(t *testing.T, rel images.Release, text, patches string) []byte {
	t.Helper()
	text = strings.ReplaceAll(text, "VERSION", rel.Version)
	if rel.ConfigAPI == "v1beta2" {
		return []byte(text)
	}
	lists := rel.ConfigAPI != "v1beta3" // flags are lists
	byKind := map[string]map[string]any{}
	var order []string
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var m map[string]any
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatal(err)
		}
		kind, _ := m["kind"].(string)
		byKind[kind], order = m, append(order, kind)
	}
	at := func(m map[string]any, path ...string) map[string]any {
		for _, key := range path {
			m, _ = m[key].(map[string]any)
		}
		return m
	}
	initial, cluster := byKind["InitConfiguration"], byKind["ClusterConfiguration"]
	for _, m := range []map[string]any{initial, cluster} {
		m["apiVersion"] = "kubeadm.k8s.io/" + rel.ConfigAPI
	}
	if patches != "" {
		initial["patches"] = map[string]any{"directory": patches}
	}
	delete(at(cluster, "dns"), "type")
	gates := at(cluster, "featureGates")
	if !rel.Has(images.FactDualStackGate) {
		delete(gates, "IPv6DualStack")
	}
	if lists && gates["PublicKeysECDSA"] == true {
		delete(gates, "PublicKeysECDSA")
		cluster["encryptionAlgorithm"] = "ECDSA-P256"
	}
	if !lists {
		return oracleJoinDocs(t, order, byKind)
	}
	if limit, ok := at(cluster, "apiServer")["timeoutForControlPlane"]; ok {
		delete(at(cluster, "apiServer"), "timeoutForControlPlane")
		initial["timeouts"] = map[string]any{"controlPlaneComponentHealthCheck": limit}
	}
	for _, c := range []struct {
		holder map[string]any
		field  string
	}{
		{at(cluster, "apiServer"), "extraArgs"}, {at(cluster, "controllerManager"), "extraArgs"}, {at(cluster, "scheduler"), "extraArgs"},
		{at(cluster, "etcd", "local"), "extraArgs"}, {at(initial, "nodeRegistration"), "kubeletExtraArgs"},
	} {
		var list []any
		for name, value := range at(c.holder, c.field) {
			list = append(list, map[string]any{"name": name, "value": value})
		}
		if list != nil {
			c.holder[c.field] = list
		}
	}
	return oracleJoinDocs(t, order, byKind)
}

func oracleJoinDocs(t *testing.T, order []string, byKind map[string]map[string]any) []byte {
	t.Helper()
	var docs []string
	for _, kind := range order {
		b, err := yaml.Marshal(byKind[kind])
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(b))
	}
	return []byte(strings.Join(docs, "---\n"))
}
