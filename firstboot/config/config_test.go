package config

import (
	"net/netip"
)

func machine() Machine {
	return Machine{
		Hostname:  "Node-A",
		MachineID: "0123456789abcdef0123456789abcdef",
		Links: []Link{
			{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::5/64")}},
		},
		Routes: []Route{{Link: "eth0"}},
	}
}
