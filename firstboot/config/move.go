package config

import (
	"fmt"
	"maps"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

// MoveTo returns the node n in the Kubernetes version of another image: what
// was given stays, what was that version's default becomes this one's.
func (n *Node) MoveTo(baked images.Baked) *Node {
	moved := *n
	moved.Sources = maps.Clone(n.Sources)
	moved.Cluster.KubernetesVersion = baked.Release.Version
	if n.Sources["cluster.imageRepository"] == sourceDefault {
		moved.Cluster.ImageRepository = baked.Registry()
	}
	if taints := "init.nodeRegistration.taints"; n.Sources[taints] == sourceDefault && n.Role != RoleWorker {
		moved.Init.NodeRegistration.Taints = DefaultTaints(baked.Release)
	}
	if mode := "cluster.apiServer.extraArgs." + authorizationMode; n.Sources[mode] == sourceDefault && !baked.Release.Has(images.FactAuthorizationModeInConfig) {
		moved.Cluster.APIServer.ExtraArgs = maps.Clone(n.Cluster.APIServer.ExtraArgs)
		delete(moved.Cluster.APIServer.ExtraArgs, authorizationMode)
		delete(moved.Sources, mode)
	}
	if !baked.Release.Has(images.FactDualStackGate) {
		// Its kubelet and kube-proxy would not start with a gate that is gone.
		moved.Cluster.FeatureGates = without(n.Cluster.FeatureGates, dualStackGate)
		moved.Kubelet, moved.KubeProxy = withoutGate(n.Kubelet, dualStackGate), withoutGate(n.KubeProxy, dualStackGate)
	}
	return &moved
}

func without[V any](m map[string]V, key string) map[string]V {
	if _, there := m[key]; !there {
		return m
	}
	m = maps.Clone(m)
	delete(m, key)
	return m
}

// withoutGate is a component's configuration without a feature gate.
func withoutGate(doc map[string]any, gate string) map[string]any {
	gates, ok := doc["featureGates"].(map[string]any)
	if !ok {
		return doc
	}
	doc = maps.Clone(doc)
	doc["featureGates"] = without(gates, gate)
	return doc
}

// VersionOf is the Kubernetes version that a ClusterConfiguration, as a cluster
// keeps it, names; empty where it names none.
func VersionOf(doc []byte) (string, error) {
	var v struct {
		KubernetesVersion string `json:"kubernetesVersion"`
	}
	err := yaml.Unmarshal(doc, &v)
	return v.KubernetesVersion, err
}

// MoveCluster returns a ClusterConfiguration as a cluster keeps it, in the
// version of rel and the config API that its kubeadm writes.
func MoveCluster(doc []byte, rel images.Release) ([]byte, error) {
	var m map[string]any
	if err := yaml.Unmarshal(doc, &m); err != nil {
		return nil, fmt.Errorf("cannot read ClusterConfiguration: %w", err)
	}
	if m["kubernetesVersion"] == rel.Version || m == nil {
		return doc, nil
	}
	if old, err := images.Assume(fmt.Sprint(m["kubernetesVersion"])); err == nil && m["imageRepository"] == old.Registry {
		m["imageRepository"] = rel.Registry
	}
	m["kubernetesVersion"] = rel.Version
	if m["apiVersion"] == kubeadmGroup+rel.ConfigAPI {
		return yaml.Marshal(m)
	}
	commonCluster(m)
	return marshalCluster(m, rel)
}
