package config

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Machine is what defaulting needs to know of the machine.
type Machine struct {
	Hostname  string // as the kernel has it
	MachineID string // /etc/machine-id
	Links     []Link
	Routes    []Route // the default routes, in the kernel's order
	Resolved  bool    // systemd-resolved is active
	// CgroupDriver is what its container runtime makes cgroups by, "systemd" or
	// "cgroupfs"; empty is what images have, systemd.
	CgroupDriver string
	Random       io.Reader
}

// Link is a network interface.
type Link struct {
	Name     string
	Up       bool
	Loopback bool
	Addrs    []netip.Prefix
}

// Route is a default route.
type Route struct {
	Link string
	IPv6 bool
}

// ErrNoAddress is the error of a machine that has no address yet on which it
// could serve the API. It may get one: wait.
var ErrNoAddress = errors.New("no network interface has an address for the API server yet: connect a network, or say advertiseAddress in user-data and give an interface that address")

// address finds the address that this node's API server shall advertise, and
// says how it was found. With a default route it does as kubeadm does: the
// first global address of the family on the route's interface, else on the
// loopback interface (RFC 5549). Without, where kubeadm gives up, it is the
// one global address of all interfaces that are not the container network's.
func (m Machine) address(preferIPv6 bool) (addr netip.Addr, how string, err error) {
	families := []bool{false, true}
	if preferIPv6 {
		families = []bool{true, false}
	}
	for _, v6 := range families {
		for _, r := range m.Routes {
			if r.IPv6 != v6 {
				continue
			}
			if a := m.on(r.Link, v6); a.IsValid() {
				return a, "interface " + r.Link + ", which has the default route", nil
			}
			if a := m.loopback(v6); a.IsValid() {
				return a, "loopback interface, as " + r.Link + " has no global address", nil
			}
		}
	}
	for _, v6 := range families {
		var found []string
		for _, l := range m.Links {
			if l.Loopback || !l.Up || virtual(l.Name) {
				continue
			}
			for _, a := range usable(l, v6) {
				if addr = a; !slices.Contains(found, a.String()+" on "+l.Name) {
					found = append(found, a.String()+" on "+l.Name)
				}
			}
			if len(found) == 1 && how == "" {
				how = "interface " + l.Name + ", no default route"
			}
		}
		if len(found) > 1 {
			return netip.Addr{}, "", Problems{{Source: "machine", Field: "InitConfiguration localAPIEndpoint.advertiseAddress", What: "there is no default route, and more than one address to choose from: " + list(found), Remedy: "say which with advertiseAddress"}}
		}
		if len(found) == 1 {
			return addr, how, nil
		}
	}
	return netip.Addr{}, "", ErrNoAddress
}

func (m Machine) on(link string, v6 bool) netip.Addr {
	for _, l := range m.Links {
		if l.Name == link && l.Up {
			for _, a := range usable(l, v6) {
				return a
			}
		}
	}
	return netip.Addr{}
}

func (m Machine) loopback(v6 bool) netip.Addr {
	for _, l := range m.Links {
		if l.Loopback && l.Up {
			for _, a := range usable(l, v6) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// usable are the global unicast addresses of a family on l.
func usable(l Link, v6 bool) []netip.Addr {
	var out []netip.Addr
	for _, p := range l.Addrs {
		if a := p.Addr().Unmap().WithZone(""); a.IsGlobalUnicast() && a.Is6() == v6 {
			out = append(out, a)
		}
	}
	return out
}

// virtual says whether a name is that of an interface which a pod network, a
// container engine or kube-proxy makes.
func virtual(name string) bool {
	return slices.ContainsFunc([]string{"cni", "flannel", "veth", "cali", "cilium", "lxc", "docker", "br-", "kube-", "nodelocaldns", "tunl", "vxlan", "dummy", "weave", "virbr"},
		func(p string) bool { return strings.HasPrefix(name, p) })
}

// name is the node's name by default.
func (m Machine) name() (name, how string, err error) {
	h := strings.ToLower(strings.TrimSpace(m.Hostname))
	switch h {
	case "", "localhost", "localhost.localdomain", "(none)":
		id := strings.TrimSpace(m.MachineID)
		if len(id) < 8 {
			return "", "", fmt.Errorf("cannot name this node: the machine has no host name and no machine ID; say `name` in user-data")
		}
		return "node-" + id[:8], "machine ID", nil
	}
	return h, "host name", nil
}
