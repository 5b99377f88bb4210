package templates

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
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

// nodeMask is config.NodeMask of a pod subnet as text, and the subnet's family.
func nodeMask(subnet string) (size, family string) {
	prefix, err := netip.ParsePrefix(strings.TrimSpace(subnet))
	if err != nil || prefix.Addr().Is4() {
		return "24", "ipv4"
	}
	return strconv.Itoa(config.NodeMask(prefix)), "ipv6"
}
