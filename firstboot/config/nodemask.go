package config

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/kbuild/kbuild/images"
)

const (
	maxNodeMaskDiff   = 16 // kube-controller-manager's bitmap of node subnets
	defaultNodeMaskV4 = 24 // kube-controller-manager --node-cidr-mask-size
	defaultNodeMaskV6 = 64
)

// NodeMask is the prefix length, in bits, of one node's piece of a pod subnet,
// as kubeadm up to v1.19 sets it (images.FactNodeCIDRMask; calcNodeCidrSize in
// cmd/kubeadm/app/phases/controlplane). IPv4 nodes get a /24. An IPv6 subnet is
// cut into 512 to 65536 pieces at a boundary of 8 bits, a /112 into 256; a
// smaller one is one node's as a whole.
func NodeMask(pods netip.Prefix) int {
	bits := pods.Bits()
	switch {
	case pods.Addr().Is4():
		return defaultNodeMaskV4
	case bits == 112:
		return 120
	case bits < 112:
		return 128 - ((128-bits-1)/8-1)*8
	}
	return bits
}

// nodeMask checks that the controller manager can cut a pod subnet into one
// piece for each node. It takes the mask that kubeadm of this version sets, or
// the controller manager's default where kubeadm sets none.
func (v *validator) nodeMask(p netip.Prefix, rel images.Release) {
	const at = "cluster.networking.podSubnet"
	arg, mask := "node-cidr-mask-size", defaultNodeMaskV4
	switch {
	case rel.Has(images.FactNodeCIDRMask):
		mask = NodeMask(p)
	case p.Addr().Is6():
		mask = defaultNodeMaskV6
	}
	if v.node.DualStack(rel) {
		arg = "node-cidr-mask-size-ipv4"
		if p.Addr().Is6() {
			arg = "node-cidr-mask-size-ipv6"
		}
	}
	args := v.node.Cluster.ControllerManager.ExtraArgs
	given := args.Get(arg)
	if given != "" {
		n, err := strconv.Atoi(given)
		if err != nil {
			v.bad("cluster.controllerManager.extraArgs."+arg, fmt.Sprintf("%q is no number", printable(given)), "write the bits of a node's mask, such as \"24\"")
			return
		}
		mask = n
	}
	// kubeadm has this limit for both families since v1.20; the controller
	// manager itself has it for IPv6 alone.
	limited := p.Addr().Is6() || !rel.Has(images.FactNodeCIDRMask)
	switch {
	case args.Get("allocate-node-cidrs") == "false":
	case p.Bits() > mask:
		v.bad(at, fmt.Sprintf("%s is smaller than what each node gets of it, a /%d", p, mask), fmt.Sprintf("write a mask of /%d or shorter, or set %s in controllerManager.extraArgs", mask, arg))
	case limited && mask-p.Bits() > maxNodeMaskDiff:
		v.bad(at, fmt.Sprintf("%s holds more than 2^%d nodes' parts (/%d)", p, maxNodeMaskDiff, mask), fmt.Sprintf("write a mask of /%d or longer, or set %s in controllerManager.extraArgs", mask-maxNodeMaskDiff, arg))
	case p.Bits() == mask && given == "":
		v.warn("podSubnet %s is what one node gets (/%d): pods on further nodes will have no network; write a larger one", p, mask)
	}
}
