package config

import (
	"fmt"
	"maps"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// Cluster is what a joining node learns from its cluster. It holds no secrets.
type Cluster struct {
	Cluster   ClusterConfiguration `json:"cluster"`
	Kubelet   map[string]any       `json:"kubelet"`
	KubeProxy map[string]any       `json:"kubeProxy,omitempty"`
}

// In returns the node n as a node of cluster c.
func (n *Node) In(c Cluster) *Node {
	joined := *n
	joined.Cluster, joined.Kubelet, joined.KubeProxy = c.Cluster, c.Kubelet, c.KubeProxy
	return &joined
}

// ReadCluster reads what a cluster keeps of its configuration (ConfigMaps
// kubeadm-config, kubelet-config and kube-proxy, the last may be missing), as
// strictly as a user's, fills in what kubeadm would on a node that joins, and
// checks that n can be a node of it. The error is Problems.
func ReadCluster(n *Node, baked images.Baked, m Machine, docs ...Document) (Cluster, []string, error) {
	s, err := schema.Load(baked.Release.Minor())
	if err != nil {
		return Cluster{}, nil, err
	}
	var probs Problems
	kinds := map[string]map[string]any{}
	in := *n
	in.Sources = maps.Clone(n.Sources)
	in.CgroupDriver = m.CgroupDriver
	for _, d := range docs {
		d.kept = true
		for _, o := range read(s, baked.Release, d, &probs) {
			prefix := prefixes()[o.kind]
			if prefix != "cluster" && prefix != "kubelet" && prefix != "kubeProxy" {
				continue // ClusterStatus, and what later versions may add
			}
			kinds[prefix] = o.value
			for p, at := range o.lines {
				in.Sources[prefix+"."+p] = fmt.Sprintf("%s, line %d", d.Source, at.line)
			}
		}
	}
	if err := probs.err(); err != nil {
		return Cluster{}, nil, err
	}
	in.Cluster, in.Kubelet, in.KubeProxy = ClusterConfiguration{}, kinds["kubelet"], kinds["kubeProxy"]
	if err := into(kinds["cluster"], &in.Cluster); err != nil {
		return Cluster{}, nil, fmt.Errorf("cannot read the cluster's ClusterConfiguration: %w", err)
	}
	if kinds["cluster"] == nil || in.Kubelet == nil {
		return Cluster{}, nil, Problems{{Source: "cluster", What: "it keeps no ClusterConfiguration or no KubeletConfiguration", Remedy: "it was not made by kubeadm or kbuild: a node cannot join it"}}
	}
	if err := in.checkSkew(baked.Release); err != nil {
		return Cluster{}, nil, err
	}
	baked.CNI, baked.PodCIDR = "none", "" // the cluster's pod network counts, not the image's
	defaultCluster(&in, baked)
	in.Kubelet["apiVersion"], in.Kubelet["kind"] = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
	warnings := in.takeCgroupDriver()
	defaultKubelet(&in, baked.Release, m)
	more, err := Validate(&in, baked)
	warnings = append(warnings, more...)
	if err != nil {
		return Cluster{}, warnings, withExcerpts(err, docs)
	}
	return Cluster{in.Cluster, in.Kubelet, in.KubeProxy}, warnings, nil
}

// checkSkew refuses to join a cluster of a version that this image does not go
// with.
func (n *Node) checkSkew(rel images.Release) error {
	v := n.Cluster.KubernetesVersion
	bad := func(what, remedy string) error {
		return Problems{{Source: n.source("cluster.kubernetesVersion"), Field: "ClusterConfiguration kubernetesVersion", What: what, Remedy: remedy}}
	}
	cluster, err := images.Assume(v)
	switch {
	case err != nil:
		return bad(fmt.Sprintf("the cluster is of a version that this image does not know: %v", err), "boot an image of the cluster's version")
	case n.Role == RoleControlPlane && cluster.Version != rel.Version:
		return bad(fmt.Sprintf("the cluster is %s, this image is %s", cluster.Version, rel.Version), "boot a control-plane node from an image of the cluster's version")
	case rel.Minor() > cluster.Minor() || rel.Minor() < cluster.Minor()-rel.KubeletSkew:
		return bad(fmt.Sprintf("the cluster is %s, this image is %s: a kubelet may be up to %d minor versions older than its API server, and never newer", cluster.Version, rel.Version, rel.KubeletSkew), "boot an image of the cluster's version")
	}
	return nil
}
