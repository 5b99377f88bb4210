package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// stepHostname gives the machine the node's name, and makes that name resolve
// without a DNS server: a static pod would wait ten seconds for it otherwise.
// Both live in memory, so it has work on every boot.
func stepHostname() converge.Step {
	return converge.Step{Name: "hostname", Done: hostnameDone, Do: setHostname}
}

func hostnameDone(_ context.Context, m *node.Machine) (bool, error) {
	name, err := m.Host.Hostname()
	if err != nil {
		return false, fmt.Errorf("cannot ask for the host name: %w", err)
	}
	hosts, err := m.Host.ReadFile(node.HostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read %s: %w", node.HostsFile, err)
	}
	return name == m.Node.Init.NodeRegistration.Name && string(hosts) == hostsText(m.Node), nil
}

func setHostname(_ context.Context, m *node.Machine) error {
	if err := m.Host.WriteFile(node.HostsFile, []byte(hostsText(m.Node)), 0o644); err != nil {
		return err
	}
	want := m.Node.Init.NodeRegistration.Name
	if name, err := m.Host.Hostname(); err == nil && name == want {
		return nil
	}
	if err := m.Host.BeforeChange("set host name"); err != nil {
		return err
	}
	if err := m.Host.SetHostname(want); err != nil {
		return fmt.Errorf("cannot set the host name to %q: %w", want, err)
	}
	return nil
}

func hostsText(n *config.Node) string {
	name := n.Init.NodeRegistration.Name
	names := name
	if short, _, ok := strings.Cut(name, "."); ok {
		names += " " + short
	}
	return "# Written by kbuild-firstboot on every boot.\n" +
		"127.0.0.1 localhost\n" +
		"::1 localhost ip6-localhost ip6-loopback\n" +
		n.Init.LocalAPIEndpoint.AdvertiseAddress + " " + names + "\n"
}
