package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Probe is what steps ask the kernel of the machine and change nothing by.
type Probe struct {
	CPUs   func() int
	UID    func() int
	Kernel func() (string, error) // release, as uname -r prints it
	Links  func() ([]Link, error)
	// Free says whether a TCP port of all addresses can be listened on: nil if
	// so, else an error that says why not.
	Free func(port int) error
	// Space returns the free bytes of the file system that holds a path of the
	// process.
	Space func(path string) (uint64, error)
	// LookupHost returns the addresses of a name, as the system resolves it.
	LookupHost func(ctx context.Context, name string) ([]string, error)
}

// Link is a network interface.
type Link struct {
	Name     string
	Up       bool
	Loopback bool
	Addrs    []netip.Prefix
}

// LocalProbe asks the running machine.
func LocalProbe() Probe {
	return Probe{
		CPUs:       runtime.NumCPU,
		UID:        os.Getuid,
		Kernel:     kernel,
		Links:      links,
		Free:       free,
		Space:      space,
		LookupHost: net.DefaultResolver.LookupHost,
	}
}

func kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("cannot ask for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

func links() ([]Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var out []Link
	for _, i := range all {
		l := Link{Name: i.Name, Up: i.Flags&net.FlagUp != 0, Loopback: i.Flags&net.FlagLoopback != 0}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it is gone already
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.Addrs = append(l.Addrs, p)
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func free(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("port %d is in use", port)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on port %d: %w", port, err)
	}
	return l.Close()
}

func space(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("cannot ask for the free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
