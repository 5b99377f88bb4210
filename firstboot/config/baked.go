package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// ReadBaked reads and checks the configuration that an image will hold, before
// there is a node, and returns the cluster that it describes, with nothing
// defaulted. It refuses what a line of d says and no node could use, in the words
// of the node. What d does not say, user-data and the machine will: it is left to
// the node. The error is Problems, or Supports'.
func ReadBaked(baked images.Baked, d Document) (ClusterConfiguration, error) {
	d.Baked = true
	l, err := parse(baked, d)
	if err != nil {
		return ClusterConfiguration{}, err
	}
	if l.role == "" { // the first node of a cluster uses all kinds
		l.role = RoleInit
	}
	given, err := l.node()
	if err != nil {
		return ClusterConfiguration{}, err
	}
	_, _, err = l.check(baked, anyMachine(), []Document{d})
	return given.Cluster, ofLines(err, d)
}

// anyMachine stands for the machines that an image will run on.
func anyMachine() Machine {
	return Machine{
		Hostname: "node", MachineID: strings.Repeat("0", 31) + "1",
		Links: []Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}},
		Routes:   []Route{{Link: "eth0"}, {Link: "eth0", IPv6: true}},
		Resolved: true,
	}
}

// ofLines keeps the problems that lie in what lines of d say.
func ofLines(err error, d Document) error {
	probs, ok := errors.AsType[Problems](err)
	if !ok {
		return err
	}
	return slices.DeleteFunc(slices.Clone(probs), func(p Problem) bool { return p.Missing || p.Source != d.Source || p.Line == 0 }).err()
}
