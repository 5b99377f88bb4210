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
// address or a DNS name. An IPv6 address needs brackets before a port, and
// wherever its last group could be one.
func parseHostPort(s string) (host, port string, err error) {
	if strings.Contains(s, "://") {
		return "", "", fmt.Errorf("%q begins with a scheme", printable(s))
	}
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
		if bare, ok := strings.CutPrefix(s, "["); ok {
			host = strings.TrimSuffix(bare, "]")
		} else if split, last, ok := ambiguous(s); ok {
			return "", "", fmt.Errorf("%q is an IPv6 address with a port or without one: does it mean [%s]:%s or [%s]?", s, split, last, s)
		}
	}
	if port != "" {
		if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
			return "", "", fmt.Errorf("port %q is not between 1 and 65535", printable(port))
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, port, nil
	}
	if errs := validation.IsDNS1123Subdomain(host); len(errs) > 0 {
		return "", "", fmt.Errorf("%q is neither an address nor a DNS name", printable(host))
	}
	return host, port, nil
}

// ambiguous says whether s, which has no brackets, is an IPv6 address both with
// its last group and without it, and that group could be a port.
func ambiguous(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	a, err := netip.ParseAddr(host)
	p, perr := strconv.Atoi(port)
	return host, port, err == nil && a.Is6() && perr == nil && p >= 1 && p <= 65535
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
