package firstboot

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepServiceRoute gives the service subnets a route on a machine that has no
// default one. kube-proxy turns a service's address into a pod's only after
// the kernel has found a route for it; without any, what runs in the host's
// network (the pod network's own agent first of all) is told that the network
// is unreachable. Routes live in memory, so it has work on every boot.
func stepServiceRoute() converge.Step {
	return converge.Step{
		Name: "service-route",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			missing, err := unroutedServices(m)
			return err == nil && len(missing) == 0, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			missing, err := unroutedServices(m)
			if err != nil {
				return err
			}
			link, addr, err := nodeLink(m)
			if err != nil {
				return err
			}
			for _, subnet := range missing {
				args := []string{"route", "replace", subnet.String(), "dev", link}
				if addr.Is4() == subnet.Addr().Is4() {
					args = append(args, "src", addr.String())
				}
				err := m.Host.Do("route "+subnet.String(), func() error {
					_, err := m.Host.Run(ctx, "ip", args...)
					return err
				})
				if err != nil {
					return fmt.Errorf("cannot give the service subnet %s a route: %w", subnet, err)
				}
			}
			return nil
		},
	}
}

// unroutedServices are the service subnets that neither a default route nor
// one of their own leads to.
func unroutedServices(m *node.Machine) ([]netip.Prefix, error) {
	defaults := map[bool]bool{} // by "is IPv6"
	for _, route := range node.DefaultRoutes(m.Host) {
		defaults[route.IPv6] = true
	}
	var missing []netip.Prefix
	for s := range strings.SplitSeq(m.Node.Cluster.Networking.ServiceSubnet, ",") {
		subnet, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("service subnet: %w", err)
		}
		if subnet = subnet.Masked(); !defaults[subnet.Addr().Is6()] && !routed(m.Host, subnet) {
			missing = append(missing, subnet)
		}
	}
	return missing, nil
}

// routed says whether the kernel's tables hold a route for exactly subnet
// (proc(5), net/route and net/ipv6_route).
func routed(h *host.Host, subnet netip.Prefix) bool {
	addr := subnet.Addr()
	if addr.Is4() {
		b, _ := h.ReadFile("/proc/net/route")
		a, m := addr.As4(), uint32(0xffffffff)<<(32-subnet.Bits())
		// The kernel prints the words as they lie in a little-endian memory.
		dest := fmt.Sprintf("%02X%02X%02X%02X", a[3], a[2], a[1], a[0])
		mask := fmt.Sprintf("%02X%02X%02X%02X", byte(m), byte(m>>8), byte(m>>16), byte(m>>24))
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 8 && f[1] == dest && f[7] == mask {
				return true
			}
		}
		return false
	}
	b, _ := h.ReadFile("/proc/net/ipv6_route")
	dest, bits := fmt.Sprintf("%x", addr.As16()), fmt.Sprintf("%02x", subnet.Bits())
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 10 && f[0] == dest && f[1] == bits {
			return true
		}
	}
	return false
}

// nodeLink is the interface that holds the address which the node advertises.
func nodeLink(m *node.Machine) (string, netip.Addr, error) {
	addr, err := netip.ParseAddr(m.Node.Init.LocalAPIEndpoint.AdvertiseAddress)
	if err != nil {
		return "", addr, fmt.Errorf("advertise address: %w", err)
	}
	links, err := m.Host.Probe.Links()
	if err != nil {
		return "", addr, err
	}
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Addr().Unmap() == addr {
				return l.Name, addr, nil
			}
		}
	}
	return "", addr, outcome.Retry{After: metadataRetry, Why: fmt.Sprintf("no interface of this machine has the node's address %s; configure the network, or correct the address in the user-data", addr)}
}
