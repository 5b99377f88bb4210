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
	return &moved
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
// version of rel.
func MoveCluster(doc []byte, rel images.Release) ([]byte, error) {
	var m map[string]any
	if err := yaml.Unmarshal(doc, &m); err != nil {
		return nil, fmt.Errorf("cannot read ClusterConfiguration: %w", err)
	}
	if m["kubernetesVersion"] == rel.Version || m == nil {
		return doc, nil
	}
	m["kubernetesVersion"] = rel.Version
	return yaml.Marshal(m)
}
