// Package testvm boots built images and checks the machines that come up.
//
// It tests what `kbuild image` wrote as a black box: of kbuild it uses nothing
// but the facts that an image records about itself. A Machine is one booted
// image. There are two kinds with one interface: a virtual machine under QEMU,
// which sees everything (firmware, verity, partitions), and a systemd-nspawn
// container of the same root, which runs at native speed. Questions go to the
// checker, a program inside the machine (packages guest and checker).
//
// What always holds: a machine has no default route; all its files are in one
// scratch directory, and its network in one namespace named after that
// directory; every process is ended by its id; and what a killed test left
// behind is ended and removed by the next one.
package testvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// Lane is a kind of machine.
type Lane string

// The lanes.
const (
	Container Lane = "container"
	VM        Lane = "vm"
)

// Machine is one booted image. Its methods are not safe for use by several
// goroutines at once.
type Machine interface {
	// Start boots the machine. It returns when its processes run, long before
	// it is ready.
	Start(ctx context.Context) error
	// Reboot asks the system inside for an orderly reboot, and returns when it
	// has shut down and boots again.
	Reboot(ctx context.Context) error
	// PowerCut ends the machine at once. Start boots it again from what was on
	// its disk.
	PowerCut() error
	// Stop asks the system inside to power off, and cuts the power when that
	// takes too long.
	Stop(ctx context.Context) error
	// SetUserData changes the credential kbuild.userdata from the next Start on.
	SetUserData(data string) error
	// SetImage changes the image that the machine boots from the next Start on:
	// the other slot. Container lane only; a virtual machine's slots are real.
	SetImage(i Image) error
	// Ask asks the checker in the machine; see package guest.
	Ask(ctx context.Context, cmd string, args, out any) error
	// Running says whether the machine's process runs; if not, how it ended.
	Running() (bool, error)
	// Places says where to look after a failure.
	Places() Places
	// Close cuts the power and removes all of the machine's files, unless
	// Options.Keep is set: then the machine keeps running.
	Close() error
}

// Places are a machine's files and process, as the host sees them.
type Places struct {
	Dir     string // all of them
	Console string // what the machine printed on its console, over all boots
	Disk    string // VM: the qcow2 overlay. Container: the directory or image that is /var
	Journal string // how to read the journal
	PID     int
}

// Options says what to boot and how.
type Options struct {
	Image    Image  // what to boot
	Name     string // of the machine, and the host name in it; empty makes one up
	UserData string // the credential kbuild.userdata
	// Credentials are further system credentials by name.
	Credentials map[string]string
	// Network is what the machine is connected to, with the address Address.
	// Without one it is alone. The names of a network's machines must differ.
	Network *Network
	Address string
	// FwCfg is user-data too, given by QEMU's fw_cfg device. VM lane only.
	FwCfg string
	// NoCloud, when not nil, is what a NoCloud volume labelled cidata holds, by
	// file name. VM lane only.
	NoCloud map[string]string
	// Kernel, when not empty, is booted by QEMU itself with Cmdline, without
	// firmware and boot loader; the disk is then an NVMe drive. VM lane only.
	Kernel, Cmdline string
	// FwCfgFiles are further entries of the fw_cfg device, contents by name. VM
	// lane only.
	FwCfgFiles map[string]string
	// Serve, when not empty, is the one address (HOST:PORT) of the host that the
	// machine reaches, as ServedAt. VM lane only.
	Serve string
	// SecureBoot gives the machine firmware that boots only what is signed by the
	// test key of Debian's package ovmf. VM lane only.
	SecureBoot bool
	// Watchdog gives the machine a hardware watchdog that resets it. VM lane
	// only; its clock also runs while a busy host does not run the machine.
	Watchdog bool
	// Next is the image that takes the place of the other slot:
	// `kbuild-firstboot upgrade apply` boots it. Container lane only; a virtual machine's slots are real.
	Next *Image
	// Keep leaves the machine when it is closed.
	Keep bool
	// Dir is the scratch directory; empty makes a new one that Close removes. A
	// directory that holds a machine's disk already boots from it again.
	Dir string
	// APIPort, when not zero, is a port of the host's loopback interface that is
	// forwarded to the API server. VM lane only.
	APIPort  int
	MemoryMB int // VM lane; zero is 4096
	CPUs     int // VM lane; zero is 2
	DiskGB   int // VM lane; zero is 12
	// Log gets progress, one line a call.
	Log func(format string, args ...any)
}

// ServedAt is where a machine reaches what Options.Serve names.
const ServedAt = "10.0.2.100:80"

// New prepares a machine of the lane; Start boots it.
func New(ctx context.Context, lane Lane, o Options) (Machine, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Network != nil && (lane == Container && o.Network.lane == VM || o.Address == "") {
		return nil, fmt.Errorf("cannot hang a machine of lane %s, address %q, on a network of lane %s: want an address, and for a container a network of its lane", lane, o.Address, o.Network.lane)
	}
	switch lane {
	case Container:
		return newContainer(ctx, o)
	case VM:
		return newQEMU(ctx, o)
	}
	return nil, fmt.Errorf("cannot make a machine of lane %q: want %s or %s", lane, Container, VM)
}

// askReboot asks the system inside to reboot. The reboot stops the checker,
// perhaps before it has answered, so no answer is no error: the caller sees
// whether the machine shuts down.
func askReboot(ctx context.Context, m Machine) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var e guest.Exec
	err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"systemctl", "reboot", "--no-block"}}, &e)
	if _, ok := errors.AsType[guest.Failed](err); ok {
		return err
	}
	if e.Code != 0 {
		return fmt.Errorf("cannot reboot the machine: systemctl ended with status %d: %s", e.Code, e.Stderr)
	}
	return nil
}

// Wait calls look until it says that nothing is missing: every two seconds, or
// less often where an answer takes long, so that a slow machine is not slowed
// down further. What is missing goes to log whenever it changes, and once a
// minute. An error of look counts as missing, because a booting machine cannot
// answer yet; Wait fails when the machine ends or ctx does.
func Wait(ctx context.Context, m Machine, log func(string, ...any), what string, look func(context.Context) (missing string, err error)) error {
	start, said, last := time.Now(), time.Time{}, "\x00"
	for {
		asked := time.Now()
		ask, cancel := context.WithTimeout(ctx, 60*time.Second)
		missing, err := look(ask)
		cancel()
		if err != nil {
			missing = err.Error()
		}
		if err == nil && missing == "" {
			log("%s: %s after %s", m.Places().Dir, what, time.Since(start).Round(100*time.Millisecond))
			return nil
		}
		if missing != last || time.Since(said) > time.Minute {
			log("%s: waiting for %s, %s: %s", m.Places().Dir, what, time.Since(start).Round(time.Second), missing)
			said, last = time.Now(), missing
		}
		if ok, err := m.Running(); !ok {
			return fmt.Errorf("cannot wait for %s: the machine ended: %v", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting for %s after %s: %w: %s", what, time.Since(start).Round(time.Second), context.Cause(ctx), missing)
		case <-time.After(min(max(2*time.Second, 3*time.Since(asked)), 10*time.Second)):
		}
	}
}

// WaitReady waits until the API is healthy, the node Ready, and CoreDNS and
// kube-proxy run, all seen since the machine's present boot.
func WaitReady(ctx context.Context, m Machine, log func(string, ...any)) error {
	return Wait(ctx, m, log, "Ready", func(ctx context.Context) (string, error) {
		var r guest.Ready
		err := m.Ask(ctx, guest.CmdReady, nil, &r)
		if err == nil && r.Waiting != "" && r.Firstboot != "" {
			return r.Waiting + " (kbuild-firstboot: " + r.Firstboot + ")", nil
		}
		return r.Waiting, err
	})
}
