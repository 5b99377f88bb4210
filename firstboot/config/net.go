package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// parseHostPort splits an endpoint whose port may be missing; the host is an
// address or a DNS name.
func parseHostPort(s string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
	}
	if port != "" {
		if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
			return "", "", fmt.Errorf("port %q is not between 1 and 65535", port)
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, port, nil
	}
	if errs := validation.IsDNS1123Subdomain(host); len(errs) > 0 {
		return "", "", fmt.Errorf("%q is neither an address nor a DNS name", host)
	}
	return host, port, nil
}

// prefixesOf reads one or more subnets, separated by commas.
func prefixesOf(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, one := range strings.Split(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("%q is no subnet", one)
		}
		out = append(out, p)
	}
	return out, nil
}

// sharesFamily says whether some subnet of a has the IP family of one of b.
func sharesFamily(a, b string) bool {
	pa, erra := prefixesOf(a)
	pb, errb := prefixesOf(b)
	if erra != nil || errb != nil {
		return false
	}
	for _, x := range pa {
		for _, y := range pb {
			if x.Addr().Is4() == y.Addr().Is4() {
				return true
			}
		}
	}
	return false
}
