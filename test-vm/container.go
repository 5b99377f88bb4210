package testvm

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"

	"github.com/kbuild/kbuild/images"
)

//go:embed nspawn.sh
var nspawnScript string

// ContainerAddress is the address of a machine without a Network, in a network
// namespace of its own.
const ContainerAddress = netPrefix + "2"

// rebootExit is how systemd-nspawn --keep-unit ends when the system inside
// asks for a reboot (systemd-nspawn.c, run_container).
const rebootExit = 133

// container is the container lane: systemd-nspawn boots the image's root.
type container struct {
	o      Options
	s      *scratch
	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd has ended
	client guest.Client
}

// ContainerUserData is what every user-data for the container lane must contain:
// on a host with cgroup v1 the kubelet cannot ask systemd for cgroups, and one of
// rel that refuses such a host by default is told to take it; on no host may
// kube-proxy set the kernel's limits.
func ContainerUserData(rel images.Release) string {
	s := "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nconntrack:\n  maxPerCore: 0\n  min: 0\n"
	if !cgroupV2() {
		kubelet := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\n"
		if rel.Has(images.FactFailCgroupV1) {
			kubelet += "failCgroupV1: false\n"
		}
		s = kubelet + "---\n" + s
	}
	return s
}

// ContainerImageConfig is what an image of rel must be built with (kbuild image
// --config) where nodes of the container lane move to it that were made by an
// image whose kubelet does not know that it may refuse this host; empty where
// nothing is needed.
func ContainerImageConfig(rel images.Release) string {
	if cgroupV2() || !rel.Has(images.FactFailCgroupV1) {
		return ""
	}
	return "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailCgroupV1: false\n"
}

func newContainer(ctx context.Context, o Options) (Machine, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("cannot boot a container: it needs root, for mounts and network namespaces: use sudo, or the VM lane")
	}
	for _, tool := range []string{"systemd-nspawn", "ip", "nsenter", "unshare", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("cannot boot a container: %w: install systemd-container, iproute2, util-linux and e2fsprogs", err)
		}
	}
	if o.Image.Root == "" {
		return nil, fmt.Errorf("cannot boot a container: no root.erofs in %s", o.Image.Dir)
	}
	if o.NoCloud != nil || o.FwCfg != "" || o.FwCfgFiles != nil || o.Kernel != "" || o.Serve != "" || o.Watchdog {
		return nil, errors.New("cannot give a container a NoCloud volume, fw_cfg, a kernel, a server or a watchdog: use the VM lane")
	}
	s, err := newScratch(o)
	if err != nil {
		return nil, err
	}
	c := &container{o: o, s: s}
	c.client.Path = s.path("share", "checker.sock")
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return c, nil
}

// prepare makes what outlives one boot: directories, /var, credentials, the
// checker, and unless the machine is connected to a Network, a network
// namespace.
func (c *container) prepare(ctx context.Context) error {
	for _, d := range []string{"root", "var", "share", "cred"} {
		if err := os.MkdirAll(c.s.path(d), 0o755); err != nil {
			return err
		}
	}
	if err := BuildChecker(ctx, c.s.path("share", "checker")); err != nil {
		return err
	}
	if _, err := os.Stat(c.s.path("var.img")); errors.Is(err, os.ErrNotExist) && loopWorks() {
		// A file system of its own: its size and the bytes written to it are the node's.
		if err := run("mkfs.ext4", "-q", "-L", "var", c.s.path("var.img"), "12G"); err != nil {
			return err
		}
	}
	creds := map[string]string{
		"network.network.05-lane": laneNetwork("Name=host0", cmp.Or(c.o.Address, ContainerAddress)),
		"system.hostname":         c.s.rec.Name,
	}
	for name, unit := range laneUnits(Container) {
		creds[name] = unit
	}
	if c.o.UserData != "" {
		creds["kbuild.userdata"] = c.o.UserData
	}
	for k, v := range c.o.Credentials {
		creds[k] = v
	}
	for name, v := range creds {
		if err := c.credential(name, v); err != nil {
			return err
		}
	}
	if c.o.Network != nil {
		return nil
	}
	return c.s.makeNetns()
}

// netns is the network namespace that the machine's bridge is in.
func (c *container) netns() string {
	if c.o.Network != nil {
		return c.o.Network.s.rec.Netns
	}
	return c.s.rec.Netns
}

func (c *container) credential(name, value string) error {
	return os.WriteFile(c.s.path("cred", name), []byte(value), 0o600)
}

func (c *container) SetUserData(data string) error { return c.credential("kbuild.userdata", data) }

func (c *container) SetImage(i Image) error {
	if i.Root == "" {
		return fmt.Errorf("cannot boot another image: no root.erofs in %s", i.Dir)
	}
	c.o.Image = i
	return nil
}

func loopWorks() bool { _, err := os.Stat("/dev/loop-control"); return err == nil }

// command is the whole command line: into the network namespace, into a mount
// namespace, through the script, to systemd-nspawn.
func (c *container) command() []string {
	argv := []string{"nsenter", "--net=/run/netns/" + c.netns(), "--",
		"unshare", "--mount", "--propagation", "private", "--",
		"sh", "-c", nspawnScript, "nspawn.sh",
		"--directory=" + c.s.path("root"), "--machine=" + c.s.rec.Name, "--uuid=" + c.uuid(),
		"--boot", "--read-only", "--register=no", "--keep-unit", "--console=read-only",
		"--network-bridge=" + bridge, "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--capability=all", "--system-call-filter=bpf keyctl add_key request_key perf_event_open @mount",
		"--bind=" + c.s.path("var") + ":/var",
		"--bind=" + c.s.path("share") + ":" + guest.Dir,
		"--bind=/dev/kmsg",
	}
	if c.o.Next != nil {
		argv = append(argv, "--bind-ro="+c.s.path("share", "checker")+":/usr/bin/kbuild-firstboot",
			"--bind-ro="+c.real()+":/usr/bin/"+guest.RealFirstboot)
	}
	if cgroupV2() && systemdHost() {
		argv = append([]string{"systemd-run", "--quiet", "--scope", "--property=Delegate=yes", "--"}, argv...)
	}
	creds, _ := filepath.Glob(c.s.path("cred", "*"))
	for _, f := range creds {
		argv = append(argv, "--load-credential="+filepath.Base(f)+":"+f)
	}
	argv = append(argv, "--", "systemd.journald.forward_to_console=1", "systemd.journald.max_level_console=info", "systemd.show_status=0")
	if !cgroupV2() {
		argv = append(argv, "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0")
	}
	return argv
}

// real is where the image's own kbuild-firstboot is copied, when something else
// stands in its place; else empty.
func (c *container) real() string {
	if c.o.Next == nil {
		return ""
	}
	return c.s.path("share", guest.RealFirstboot)
}

func systemdHost() bool { _, err := os.Stat("/run/systemd/system"); return err == nil }

// uuid is the machine's, the same at every boot.
func (c *container) uuid() string { return uuidOf(c.s.dir) }

func uuidOf(seed string) string {
	h := sha256.Sum256([]byte(seed))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80 // RFC 9562, version 4
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func (c *container) Start(ctx context.Context) error {
	if ok, _ := c.Running(); ok {
		return errors.New("cannot start the machine: it is running")
	}
	if !cgroupV2() || !systemdHost() {
		groups, err := makeCgroups("kbt-" + filepath.Base(c.s.dir))
		c.s.rec.Cgroups = groups
		if err := errors.Join(err, c.s.save()); err != nil {
			return err
		}
	}
	// The interface of a machine whose power was cut may be there for a while yet.
	exec.Command("ip", "-netns", c.netns(), "link", "delete", "vb-"+c.s.rec.Name).Run()
	console, err := os.OpenFile(c.s.path("console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	varImage := c.s.path("var.img")
	if _, err := os.Stat(varImage); err != nil {
		varImage = ""
	}
	argv := c.command()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a kept machine outlives the terminal
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "NOTIFY_SOCKET=") }),
		"KBT_CGROUPS="+strings.Join(c.s.rec.Cgroups, " "), "KBT_ROOT="+c.o.Image.Root, "KBT_MNT="+c.s.path("root"),
		"KBT_VAR="+varImage, "KBT_VARDIR="+c.s.path("var"), "KBT_FIRSTBOOT="+c.real())
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the container: %w", err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	c.cmd, c.ended = cmd, ended
	c.s.rec.Machine = procOf(cmd.Process.Pid)
	return c.s.save()
}

func (c *container) Reboot(ctx context.Context) error {
	if err := askReboot(ctx, c); err != nil {
		return err
	}
	return c.rebooted(ctx)
}

// rebooted waits until the machine has gone down for a reboot, and boots it.
func (c *container) rebooted(ctx context.Context) error {
	select {
	case <-c.ended:
	case <-ctx.Done():
		return fmt.Errorf("the machine does not shut down for the reboot: %w", context.Cause(ctx))
	}
	if code := c.cmd.ProcessState.ExitCode(); code != rebootExit {
		return fmt.Errorf("the machine shut down for the reboot with exit status %d, want %d", code, rebootExit)
	}
	c.client.Close()
	// A kernel begins without cgroups; a kubelet that finds those of dead
	// containers spends a minute looking for them.
	if err := c.removeCgroups(); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Swapped waits until a container with Options.Next shuts down for the reboot
// that applies an update, and boots it: from that image, or, when it falls back,
// from the old one again.
func Swapped(ctx context.Context, m Machine, fallsBack bool) error {
	c, ok := m.(*container)
	if !ok || c.o.Next == nil {
		return errors.New("this container has no other slot: make it with Options.Next")
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := os.Remove(c.s.path("share", guest.Applied)); err != nil {
		return fmt.Errorf("the machine shut down, but not for an update: %w", err)
	}
	if !fallsBack {
		old := c.o.Image
		c.o.Image, c.o.Next = *c.o.Next, &old
	}
	return c.rebooted(ctx)
}

// SetNext puts an image into the other slot of a container with Options.Next.
func SetNext(m Machine, i Image) error {
	c, ok := m.(*container)
	if !ok || c.o.Next == nil {
		return errors.New("this container has no other slot: make it with Options.Next")
	}
	c.o.Next = &i
	return nil
}

func (c *container) removeCgroups() error {
	var errs []error
	for _, dir := range c.s.rec.Cgroups {
		errs = append(errs, removeCgroup(dir))
	}
	return errors.Join(errs...)
}

func (c *container) PowerCut() error {
	c.client.Close()
	if err := c.s.rec.end(); err != nil {
		return err
	}
	if c.ended != nil {
		<-c.ended
	}
	return c.removeCgroups()
}

func (c *container) Stop(ctx context.Context) error {
	if ok, _ := c.Running(); !ok {
		return nil
	}
	// systemd-nspawn passes it on as SIGRTMIN+3: power off in order.
	syscall.Kill(c.s.rec.Machine.PID, syscall.SIGTERM)
	select {
	case <-c.ended:
		return c.PowerCut()
	case <-time.After(90 * time.Second):
		return errors.Join(errors.New("the machine did not power off within 90 s"), c.PowerCut())
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.PowerCut())
	}
}

func (c *container) Ask(ctx context.Context, cmd string, args, out any) error {
	return c.client.Ask(ctx, cmd, args, out)
}

func (c *container) Running() (bool, error) {
	if c.cmd == nil {
		return false, errors.New("not started")
	}
	select {
	case <-c.ended:
		return false, fmt.Errorf("systemd-nspawn ended: %s; see %s", c.cmd.ProcessState, c.s.path("console.log"))
	default:
		return true, nil
	}
}

func (c *container) Places() Places {
	p := Places{Dir: c.s.dir, Console: c.s.path("console.log"), Disk: c.s.path("var"), PID: c.s.rec.Machine.PID}
	p.Journal = "journalctl --directory=" + c.s.path("var", "log", "journal")
	if _, err := os.Stat(c.s.path("var.img")); err == nil {
		p.Disk = c.s.path("var.img")
		p.Journal = fmt.Sprintf("nsenter --target %d --mount %s", p.PID, p.Journal)
	}
	return p
}

func (c *container) Close() error {
	c.client.Close()
	if c.o.Keep {
		return nil
	}
	return errors.Join(c.PowerCut(), c.s.close())
}
