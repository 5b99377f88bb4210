package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// Clock is by what certificates are judged and made on this machine.
func (m *Machine) Clock() pki.Clock {
	return pki.Clock{Now: m.Host.Now(), Built: m.Baked.BuildTime}
}

// Facts finds out what defaulting a configuration needs to know.
func Facts(ctx context.Context, h *host.Host) (config.Machine, error) {
	m := config.Machine{}
	name, err := h.Hostname()
	if err != nil {
		return m, fmt.Errorf("cannot ask for the host name: %w", err)
	}
	m.Hostname = name
	if id, err := h.ReadFile("/etc/machine-id"); err == nil {
		m.MachineID = strings.TrimSpace(string(id))
	}
	links, err := h.Probe.Links()
	if err != nil {
		return m, err
	}
	for _, l := range links {
		m.Links = append(m.Links, config.Link(l))
	}
	m.Routes = DefaultRoutes(h)
	m.CgroupDriver = cgroupDriver(h)
	state, err := h.Systemd.Active(ctx, "systemd-resolved.service")
	if err != nil {
		h.Log.Warn("cannot ask whether systemd-resolved is active; taken for no", slog.Any("error", err))
	}
	// A unit that is on its way will be there when the kubelet asks it.
	m.Resolved = state == "active" || state == "activating" || state == "reloading"
	return m, nil
}

// systemdCgroup is the line of containerd's configuration that says how runc makes
// cgroups.
var systemdCgroup = regexp.MustCompile(`(?m)^[ \t]*SystemdCgroup[ \t]*=[ \t]*(true|false)\b`)

// cgroupDriver is that of the machine's containerd; empty where its configuration
// does not say. Where kbuild is a system extension, its containerd has a
// configuration of its own.
func cgroupDriver(h *host.Host) string {
	b, err := h.ReadFile("/usr/lib/kbuild/containerd.toml")
	if errors.Is(err, fs.ErrNotExist) {
		b, err = h.ReadFile("/etc/containerd/config.toml")
	}
	if err != nil {
		return ""
	}
	switch m := systemdCgroup.FindSubmatch(b); {
	case m == nil:
		return ""
	case string(m[1]) == "true":
		return "systemd"
	}
	return "cgroupfs"
}

// DefaultRoutes reads the kernel's routing tables (proc(5), net/route and
// net/ipv6_route). A table that is missing has no route.
func DefaultRoutes(h *host.Host) []config.Route {
	var out []config.Route
	b, _ := h.ReadFile("/proc/net/route")
	for _, line := range strings.Split(string(b), "\n") {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		if f := strings.Fields(line); len(f) >= 8 && f[1] == "00000000" && f[7] == "00000000" {
			out = append(out, config.Route{Link: f[0]})
		}
	}
	b, _ = h.ReadFile("/proc/net/ipv6_route")
	for _, line := range strings.Split(string(b), "\n") {
		// destination, its prefix length, source, its prefix length, next hop,
		// metric, reference count, use count, flags, Iface
		if f := strings.Fields(line); len(f) == 10 && f[0] == strings.Repeat("0", 32) && f[1] == "00" && f[9] != "lo" {
			out = append(out, config.Route{Link: f[9], IPv6: true})
		}
	}
	return out
}
