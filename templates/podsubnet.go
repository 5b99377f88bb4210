package templates

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// podSubnet lets the controller manager give each node a piece of the pod
// network.
func (p PodParams) podSubnet(args map[string]string) {
	n := p.Node.Cluster.Networking
	if n.PodSubnet == "" {
		return
	}
	args["allocate-node-cidrs"] = "true"
	args["cluster-cidr"] = n.PodSubnet
	if n.ServiceSubnet != "" {
		args["service-cluster-ip-range"] = n.ServiceSubnet
	}
	if !p.Release.Has(images.FactNodeCIDRMask) {
		return
	}
	if !p.Node.Cluster.FeatureGates[dualStack] {
		size, _ := nodeMask(n.PodSubnet)
		args["node-cidr-mask-size"] = size
		return
	}
	for subnet := range strings.SplitSeq(n.PodSubnet, ",") {
		size, family := nodeMask(subnet)
		args["node-cidr-mask-size-"+family] = size
	}
}

// nodeMask is the prefix length of one node's piece of a pod subnet, and the
// subnet's family. IPv4 nodes get a /24. An IPv6 subnet is cut so that there
// are 512 to 65536 nodes at a boundary of 8 bits; a /112 into 256 nodes, and a
// smaller one not at all, which validation refuses.
func nodeMask(subnet string) (size, family string) {
	prefix, err := netip.ParsePrefix(strings.TrimSpace(subnet))
	if err != nil || prefix.Addr().Is4() {
		return "24", "ipv4"
	}
	switch bits := prefix.Bits(); {
	case bits == 112:
		return "120", "ipv6"
	case bits < 112:
		return fmt.Sprint(128 - ((128-bits-1)/8-1)*8), "ipv6"
	default:
		return fmt.Sprint(bits), "ipv6"
	}
}
