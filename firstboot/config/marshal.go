package config

import (
	"encoding/json"
	"fmt"
	"maps"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// MarshalCluster writes the ClusterConfiguration as kubeadm of rel does, for
// the ConfigMap kubeadm-config.
func MarshalCluster(n *Node, rel images.Release) ([]byte, error) {
	m, err := generic(n.Cluster)
	if err != nil {
		return nil, err
	}
	return marshalCluster(m, rel)
}

// marshalCluster writes a ClusterConfiguration that has the shape of all
// versions. What kubeadm fills in where it reads one of this version, and nothing
// else needs, is filled in here.
func marshalCluster(m map[string]any, rel images.Release) ([]byte, error) {
	api, kind := kubeadmGroup+rel.ConfigAPI, "ClusterConfiguration"
	s, err := schema.Load(rel.Minor())
	if err != nil {
		return nil, err
	}
	fields := s.Types[s.Kinds[api+"/"+kind]]
	fill := func(m map[string]any, fields map[string]string, name string, v any) {
		if _, known := fields[name]; known && m[name] == nil {
			m[name] = v
		}
	}
	fill(m, fields, "encryptionAlgorithm", defaultKeyAlgorithm)
	fill(m, fields, "certificateValidityPeriod", "8760h0m0s")
	fill(m, fields, "caCertificateValidityPeriod", "87600h0m0s")
	if external, ok := valueAt(m, "/etcd/external").(map[string]any); ok {
		fill(external, s.Types[rel.ConfigAPI+".ExternalEtcd"], "httpEndpoints", external["endpoints"])
	}
	return marshal(m, rel, api, kind)
}

// MarshalClusterStatus writes kubeadm's ClusterStatus: where the API server of
// each control-plane node, by its name, listens.
func MarshalClusterStatus(endpoints map[string]APIEndpoint, rel images.Release) ([]byte, error) {
	return marshal(map[string]any{"apiEndpoints": endpoints}, rel, "kubeadm.k8s.io/"+rel.ConfigAPI, "ClusterStatus")
}

// UnmarshalClusterStatus reads what MarshalClusterStatus, or kubeadm, wrote.
func UnmarshalClusterStatus(b []byte) (map[string]APIEndpoint, error) {
	var s struct {
		APIEndpoints map[string]APIEndpoint `json:"apiEndpoints"`
	}
	if err := yaml.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("cannot read ClusterStatus: %w", err)
	}
	return s.APIEndpoints, nil
}

// MarshalKubelet writes the KubeletConfiguration as kubeadm of rel does, for
// /var/lib/kubelet/config.yaml and its ConfigMap.
func MarshalKubelet(n *Node, rel images.Release) ([]byte, error) {
	return marshal(n.Kubelet, rel, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
}

// MarshalKubeProxy writes the KubeProxyConfiguration as kubeadm of rel does,
// for the ConfigMap kube-proxy.
func MarshalKubeProxy(n *Node, rel images.Release) ([]byte, error) {
	return marshal(n.KubeProxy, rel, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")
}

// marshal writes v as the typed object of that kind marshals: kubeadm's
// documents show every field that has no omitempty, be it zero ("0s", null,
// {}), and no field that has it and is zero.
func marshal(v any, rel images.Release, api, kind string) ([]byte, error) {
	s, err := schema.Load(rel.Minor())
	if err != nil {
		return nil, err
	}
	typ, ok := s.Kinds[api+"/"+kind]
	if !ok {
		return nil, fmt.Errorf("cannot write a %s: Kubernetes %s has none in %s", kind, rel.Version, api)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", kind, err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", kind, err)
	}
	out := shape(s, s.Types[typ], m)
	out["apiVersion"], out["kind"] = api, kind
	return yaml.Marshal(out)
}

// shape gives m the fields that encoding/json writes for a struct with these.
func shape(s *schema.Schema, fields map[string]string, m map[string]any) map[string]any {
	out := map[string]any{}
	for name, spelling := range fields {
		t := schema.Parse(spelling)
		if v, keep := shapeValue(s, t, m[name]); keep {
			out[name] = v
		}
	}
	return out
}

// shapeValue returns what is written for v, a field of type t, and whether it
// is written at all. v is nil where the field is not set.
func shapeValue(s *schema.Schema, t schema.Type, v any) (any, bool) {
	if p, ok := t.Pointer(); ok {
		if v == nil {
			return nil, !t.OmitEmpty
		}
		out, _ := shapeValue(s, p, v)
		return out, true
	}
	if elem, ok := t.List(); ok {
		l, _ := v.([]any)
		if flags, ok := v.(map[string]any); ok {
			l = flagList(flags)
		}
		if len(l) == 0 && t.OmitEmpty {
			return nil, false
		}
		if v == nil {
			return nil, true // a nil slice: null
		}
		out := make([]any, len(l))
		for i := range l {
			out[i], _ = shapeValue(s, elem, l[i])
		}
		return out, true
	}
	if elem, ok := t.Map(); ok {
		m, _ := v.(map[string]any)
		if len(m) == 0 && t.OmitEmpty {
			return nil, false
		}
		if v == nil {
			return nil, true
		}
		out := maps.Clone(m)
		for k, e := range out {
			if values, ok := e.([]any); ok && elem.Name == "string" && len(values) > 0 {
				e = values[len(values)-1] // of a flag that is given twice the last counts
			}
			out[k], _ = shapeValue(s, elem, e)
		}
		return out, true
	}
	if name, ok := t.Struct(); ok {
		m, _ := v.(map[string]any)
		return shape(s, s.Types[name], m), true // omitempty means nothing for a struct
	}
	zero := zeroOf(t.Name)
	if t.Name == "duration" || t.Name == "nanoseconds" || t.Name == "quantity" {
		// Structs that write themselves: omitempty means nothing for them
		// either.
		if v == nil {
			return zero, true
		}
		return normal(t.Name, v), true
	}
	if v == nil || v == zero {
		return zero, !t.OmitEmpty
	}
	return v, true
}
