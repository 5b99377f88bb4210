package node

import "path"

const (
	// ConfigFile is the frozen configuration of the node, a config.Node.
	ConfigFile = "/var/lib/kbuild/node.json"
	// ClusterFile is what a joining node has learned of its cluster.
	ClusterFile = "/var/lib/kbuild/cluster.json"
	// EtcdJoinFile says how far this node's member of etcd is.
	EtcdJoinFile = "/var/lib/kbuild/etcd-join.json"
	// ResetFile says that this machine is being reset: from the moment that it is
	// there, every boot goes on with that, until it is gone with all the rest.
	ResetFile = "/var/lib/kbuild/reset.json"
	// HostsFile is what /etc/hosts links to.
	HostsFile = "/run/kbuild/hosts"

	// AdminKubeconfig is the kubeconfig with which a control-plane node sets its
	// cluster up.
	AdminKubeconfig = "/etc/kubernetes/admin.conf"
	// KubeletKubeconfig is the kubelet's own. A machine that has it has joined.
	KubeletKubeconfig = "/etc/kubernetes/kubelet.conf"
	// BootstrapKubeconfig is what a joining node shows to its cluster until it
	// has a certificate. It holds the server and the authority that were found.
	BootstrapKubeconfig = "/etc/kubernetes/bootstrap-kubelet.conf"

	// ManifestDir is where the kubelet looks for static pods.
	ManifestDir = "/etc/kubernetes/manifests"
)

// ManifestPath is the file of the static pod named name.
func ManifestPath(name string) string { return path.Join(ManifestDir, name+".yaml") }
