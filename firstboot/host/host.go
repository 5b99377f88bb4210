// Package host is everything outside the process: the machine's files, its
// commands, systemd, the container runtime, the clock and the log. A step
// reaches the world through a Host and nothing else, so that a test can put a
// directory and a stopped clock in its place, and cut the power at any call.
package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one machine. Its functions are fields so that a test may replace
// one; Local fills them all for the running machine.
type Host struct {
	// Root is the root directory; all paths given to a Host are absolute paths
	// of the machine and are looked up below it.
	Root *os.Root
	// Run runs a command to its end and returns its standard output. An error
	// holds the command line and what it printed.
	Run func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Systemd talks to PID 1 over D-Bus.
	Systemd Systemd
	Now     func() time.Time
	// SetClock sets the system clock.
	SetClock func(time.Time) error
	// Hostname is the kernel's host name; SetHostname changes it until reboot.
	Hostname    func() (string, error)
	SetHostname func(name string) error
	// Env is the environment of the process, each "NAME=VALUE". Proxies are
	// told by it.
	Env []string
	// Proxy tells which proxy a request would go through; nil is none.
	Proxy func(*http.Request) (*url.URL, error)
	Log   *slog.Logger
	// Probe asks about the machine; LocalProbe asks the running one.
	Probe Probe
	// HTTP fetches what the machine is given from outside. Its time-outs bound
	// every request; it uses no proxy and follows no redirect.
	HTTP *http.Client
	// GuestInfo asks VMware's hypervisor for the key guestinfo.KEY; a key that
	// is not set is empty. Any other machine refuses. May be nil.
	GuestInfo func(key string) (string, error)
	// FactoryReset asks for the state partition to be wiped at the next boot. The
	// error is ErrNoVariables where the firmware cannot be asked.
	FactoryReset func() error
	// Virtualization is what the machine runs in, as systemd-detect-virt(1) names
	// it: "kvm", "qemu" (emulated), "none". Empty where systemd does not say; nil
	// is the same.
	Virtualization func() string
	// Trial says whether the boot loader counts this boot: a new slot is tried.
	// May be nil: it does not.
	Trial func() bool
	// Effect is called with a name before each change to the machine (a file
	// written or removed, a unit started, an object created). Tests stop the
	// world here. Nil on a real machine.
	Effect func(what string) error
}

// Emulated says whether the machine's processor is emulated by software, which
// is many times slower than one that runs (QEMU's TCG).
func (h *Host) Emulated() bool { return h.Virtualization != nil && h.Virtualization() == "qemu" }

// Systemd is what steps ask of PID 1. Each call returns when the job is done.
type Systemd struct {
	Start   func(ctx context.Context, unit string) error
	Restart func(ctx context.Context, unit string) error
	Stop    func(ctx context.Context, unit string) error
	Reload  func(ctx context.Context) error // daemon-reload
	// Active returns the unit's ActiveState: "active", "inactive", "failed", …
	Active func(ctx context.Context, unit string) (string, error)
	// Wait returns when something about the unit changed, or ctx ends.
	Wait func(ctx context.Context, unit string)
	// StartTransient begins a transient service; one of that name that is there
	// already is taken for it. Outcome tells how it is, and Forget ends it.
	StartTransient func(ctx context.Context, t Transient) error
	Outcome        func(ctx context.Context, unit string) (Outcome, error)
	Forget         func(ctx context.Context, unit string) error
}

// Do runs change after Effect was told of it: for changes that are no files.
func (h *Host) Do(what string, change func() error) error {
	if err := h.effect(what); err != nil {
		return err
	}
	return change()
}

func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

func (h *Host) effect(what string) error {
	if h.Effect == nil {
		return nil
	}
	return h.Effect(what)
}

// BeforeChange is called by rooms that change what lies outside the machine's
// files (the cluster, the container runtime) before each change, as the
// functions here do it themselves.
func (h *Host) BeforeChange(what string) error { return h.effect(what) }

// ReadFile reads a file of the machine.
func (h *Host) ReadFile(name string) ([]byte, error) { return h.Root.ReadFile(rel(name)) }

// BootIDFile is another text at each boot.
const BootIDFile = "/proc/sys/kernel/random/boot_id"

// BootID is the ID of this boot, as Nodes show it, too.
func (h *Host) BootID() (string, error) {
	b, err := h.ReadFile(BootIDFile)
	if err != nil {
		return "", fmt.Errorf("cannot tell which boot this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Exists says whether name is there.
func (h *Host) Exists(name string) bool {
	_, err := h.Root.Stat(rel(name))
	return err == nil
}

// WriteFile writes a file so that after a power cut either the old or the new
// content is there, whole: temporary file in the same directory, fsync,
// rename, fsync of the directory. Missing directories are made with mode
// 0755. A file that already holds data with that mode is left alone.
func (h *Host) WriteFile(name string, data []byte, mode fs.FileMode) error {
	name = rel(name)
	if old, err := h.Root.ReadFile(name); err == nil && string(old) == string(data) {
		if st, err := h.Root.Stat(name); err == nil && st.Mode().Perm() == mode.Perm() {
			return nil
		}
	}
	if err := h.effect("write " + name); err != nil {
		return err
	}
	dir := path.Dir(name)
	if err := h.Root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	tmp := path.Join(dir, ".kbuild-"+rand.Text())
	f, err := h.Root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode.Perm()))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = h.Root.Rename(tmp, name)
	}
	if err != nil {
		h.Root.Remove(tmp)
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return h.syncDir(dir)
}

// Symlink makes name a symbolic link to target, in the place of what is there:
// at any time name is either the old or the new. Missing directories are made
// with mode 0755.
func (h *Host) Symlink(target, name string) error {
	name = rel(name)
	if old, err := h.Root.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := h.effect("link " + name); err != nil {
		return err
	}
	dir := path.Dir(name)
	tmp := path.Join(dir, ".kbuild-"+rand.Text())
	err := h.Root.MkdirAll(dir, 0o755)
	if err == nil {
		err = h.Root.Symlink(target, tmp)
	}
	if err == nil {
		err = h.Root.Rename(tmp, name)
	}
	if err != nil {
		h.Root.Remove(tmp)
		return fmt.Errorf("cannot link %s: %w", name, err)
	}
	return h.syncDir(dir)
}

// Rename gives what is at old the name new, where nothing may be but a file:
// at any time it has one of the two.
func (h *Host) Rename(old, new string) error {
	old, new = rel(old), rel(new)
	if err := h.effect("rename " + old + " to " + new); err != nil {
		return err
	}
	if err := h.Root.Rename(old, new); err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", old, new, err)
	}
	return errors.Join(h.syncDir(path.Dir(old)), h.syncDir(path.Dir(new)))
}

// Remove removes a file; one that is not there is no error.
func (h *Host) Remove(name string) error { return h.remove("remove ", name, h.Root.Remove) }

// RemoveAll removes a file, or a directory with all that is in it.
func (h *Host) RemoveAll(name string) error { return h.remove("remove all ", name, h.Root.RemoveAll) }

func (h *Host) remove(what, name string, remove func(string) error) error {
	name = rel(name)
	if _, err := h.Root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := h.effect(what + name); err != nil {
		return err
	}
	if err := remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	return h.syncDir(path.Dir(name))
}

// Entries lists what is in a directory; one that is not there has nothing in it.
func (h *Host) Entries(dir string) ([]string, error) {
	d, err := h.Root.Open(rel(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// MkdirAll makes a directory and its missing parents, and sets its mode.
func (h *Host) MkdirAll(name string, mode fs.FileMode) error {
	name = rel(name)
	if st, err := h.Root.Stat(name); err == nil && st.IsDir() && st.Mode().Perm() == mode.Perm() {
		return nil
	}
	if err := h.effect("mkdir " + name); err != nil {
		return err
	}
	if err := h.Root.MkdirAll(name, mode); err != nil {
		return fmt.Errorf("cannot make directory %s: %w", name, err)
	}
	return h.Root.Chmod(name, mode)
}

func (h *Host) syncDir(dir string) error {
	d, err := h.Root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock takes the lock that the file name stands for, and fails when another
// process holds it. The lock ends with unlock, or with the process.
func (h *Host) Lock(name string) (unlock func(), err error) {
	name = rel(name)
	if err := h.Root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	f, err := h.Root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock /%s: process %s holds it", name, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("cannot lock /%s: %w", name, err)
	}
	f.Truncate(0)
	fmt.Fprintf(f, "%d\n", os.Getpid())
	return func() { f.Close() }, nil
}

// Path is the path of name as the process sees it, for clients that take a
// path (sockets, kubeconfigs).
func (h *Host) Path(name string) string { return filepath.Join(h.Root.Name(), rel(name)) }
