package testvm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Network connects several machines. They reach each other and nothing else: no
// router, no name server, no host. In the container lane it is a network
// namespace with a bridge, to which VMs may be connected, too, by a tap device.
// In the VM lane it is a multicast group on the host's loopback interface, which
// needs no privileges.
//
// Its addresses are 10.77.0.0/24. Machines are made after it (Options.Network)
// and closed before it.
type Network struct {
	lane Lane
	s    *scratch
}

// netPrefix is what a network's addresses begin with.
const netPrefix = "10.77.0."

// bridge is the bridge's name in a namespace.
const bridge = "kbt0"

// NewNetwork makes a network for machines of the lane. With keep, Close does not
// remove it.
func NewNetwork(lane Lane, keep bool, log func(string, ...any)) (*Network, error) {
	s, err := newScratch(Options{Name: "net", Keep: keep, Log: log})
	if err != nil {
		return nil, err
	}
	n := &Network{lane, s}
	if lane == Container {
		if err := s.makeNetns(); err != nil {
			return nil, errors.Join(err, n.s.close())
		}
		// The balancer's address; see NewBalancer.
		if err := run("ip", "-n", s.rec.Netns, "addr", "add", n.Address(1)+"/24", "dev", bridge); err != nil {
			return nil, errors.Join(err, n.s.close())
		}
	}
	return n, nil
}

// Address is the k-th address of the network, from 1 to 254. The first is the
// balancer's.
func (n *Network) Address(k int) string { return fmt.Sprint(netPrefix, k) }

// Close removes the network. Its machines must be closed.
func (n *Network) Close() error {
	if n.s.rec.Keep {
		return nil
	}
	return n.s.close()
}

// netdev is QEMU's end of the network for a VM with the scratch directory dir.
// Group and port are the network's, the MAC address is the machine's. A tap is
// the first file that QEMU inherits.
func (n *Network) netdev(dir string) []string {
	// 239.192.0.0/14 is for an organisation's own use (RFC 2365, section 6.2).
	g := sha256.Sum256([]byte(n.s.dir))
	m := sha256.Sum256([]byte(dir))
	end := "tap,id=net,fd=3"
	if n.lane == VM {
		end = fmt.Sprintf("socket,id=net,mcast=239.192.%d.%d:%d,localaddr=127.0.0.1", g[0], g[1], 20000+int(g[2]))
	}
	return []string{
		"-netdev", end,
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net,romfile=,mac=52:54:00:%02x:%02x:%02x", m[0], m[1], m[2]),
	}
}

// tap connects a VM to the network's bridge; without a bridge it is nil. The
// device goes away with the last process that has the file open.
func (n *Network) tap(machine string) (*os.File, error) {
	if n == nil || n.lane == VM {
		return nil, nil
	}
	ns := n.s.rec.Netns
	name := "tap-" + machine
	var f *os.File
	err := inNetns(ns, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		return err
	})
	if err == nil {
		err = run("ip", "-n", ns, "link", "set", name, "master", bridge, "up")
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("cannot connect %s to the network: %w", machine, err)
	}
	return f, nil
}

// makeNetns makes a network namespace named after the scratch directory, with a
// bridge in it.
func (s *scratch) makeNetns() error {
	ns := "kbt-" + filepath.Base(s.dir)
	s.rec.Netns = ns
	if err := s.save(); err != nil {
		return err
	}
	return errors.Join(
		run("ip", "netns", "add", ns),
		run("ip", "-n", ns, "link", "set", "lo", "up"),
		run("ip", "-n", ns, "link", "add", bridge, "type", "bridge"),
		run("ip", "-n", ns, "link", "set", bridge, "addrgenmode", "none", "up"),
	)
}

// inNetns runs f in a network namespace, for the sockets that it makes. Its
// thread is never unlocked, so that it ends here and nothing else of this
// process gets into the namespace.
func inNetns(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(filepath.Join("/run/netns", name))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("cannot enter network namespace %s: %w", name, err)
			return
		}
		done <- f()
	}()
	return <-done
}
