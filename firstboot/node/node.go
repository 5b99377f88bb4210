// Package node is the machine that a pass works on, as a node of its cluster: its
// host, its image, its frozen configuration, its kubeconfigs, its Node object and
// its member of etcd.
//
// What always holds: reading changes nothing, and what is read comes back as a
// value; a file that is frozen here is written whole or not at all, for root
// alone; and a record says what it was made from, so that one which was made for
// other user-data does not count.
package node

import (
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Machine is one pass through the list on one machine.
type Machine struct {
	Host  *host.Host
	Baked images.Baked // what the image says of itself
	// Node is the frozen node configuration. It is nil until the metadata
	// step is done; every later step may rely on it.
	Node *config.Node
}

// Release is the image's, with the facts as the cluster's feature gates have them.
func (m *Machine) Release() images.Release {
	return m.Baked.Release.With(m.Node.Cluster.FeatureGates)
}
