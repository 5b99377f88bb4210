package testvm

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// virtual is the VM lane: QEMU boots the image's disk through UEFI firmware.
type virtual struct {
	o      Options
	s      *scratch
	tree   vmTree
	ended  chan struct{} // closed when QEMU has ended; nil when another process started it
	state  *os.ProcessState
	client guest.Client
}

func newQEMU(ctx context.Context, o Options) (Machine, error) {
	if o.Image.Disk == "" {
		return nil, fmt.Errorf("cannot boot a VM: no disk.raw in %s", o.Image.Dir)
	}
	if o.Network != nil && o.APIPort != 0 {
		return nil, errors.New("cannot forward a port of the host to a VM on a Network: it has no other network card")
	}
	tree, err := findVMTree(ctx)
	if err != nil {
		return nil, err
	}
	s, err := newScratch(o)
	if err != nil {
		return nil, err
	}
	v := &virtual{o: o, s: s, tree: tree}
	v.client.Path = s.path("share", "checker.sock")
	if err := v.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return v, nil
}

// prepare makes what outlives one boot: the overlay, the firmware's variables,
// credentials, the checker's drive.
func (v *virtual) prepare(ctx context.Context) error {
	for _, d := range []string{"share", "cred"} {
		if err := os.MkdirAll(v.s.path(d), 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Stat(v.s.path("disk.qcow2")); errors.Is(err, os.ErrNotExist) {
		size := cmpOr(v.o.DiskGB, 12)
		cmd := v.tree.command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", v.o.Image.Disk, v.s.path("disk.qcow2.new"), strconv.Itoa(size)+"G")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot make the VM's disk: %w: %s", err, strings.TrimSpace(string(out)))
		}
		vars, err := os.ReadFile(filepath.Join(v.tree.dir, v.o.firmware().vars))
		if err != nil {
			return err
		}
		err = errors.Join(os.WriteFile(v.s.path("vars.fd"), vars, 0o600), v.s.recordBacking(v.o.Image))
		if err != nil {
			return err
		}
		if err := os.Rename(v.s.path("disk.qcow2.new"), v.s.path("disk.qcow2")); err != nil {
			return err
		}
	} else if err := v.s.checkBacking(v.o.Image); err != nil {
		return err
	}
	if err := BuildChecker(ctx, v.s.path("checker.img")); err != nil {
		return err
	}
	if err := padToSector(v.s.path("checker.img")); err != nil {
		return err
	}
	creds := laneUnits(VM)
	creds["system.hostname"] = v.s.rec.Name
	if v.o.Network != nil {
		creds["network.network.05-lane"] = laneNetwork("Type=ether\nKind=!*", v.o.Address)
	}
	if v.o.UserData != "" {
		creds["kbuild.userdata"] = v.o.UserData
	}
	for k, val := range v.o.Credentials {
		creds[k] = val
	}
	for name, val := range creds {
		if err := v.credential(name, val); err != nil {
			return err
		}
	}
	if v.o.FwCfg != "" {
		if err := os.WriteFile(v.s.path("fwcfg"), []byte(v.o.FwCfg), 0o600); err != nil {
			return err
		}
	}
	for name, val := range v.o.FwCfgFiles {
		if err := os.WriteFile(v.fwCfgFile(name), []byte(val), 0o600); err != nil {
			return err
		}
	}
	if v.o.NoCloud != nil {
		return writeISO(v.s.path("cidata.iso"), "cidata", v.o.NoCloud)
	}
	return nil
}

func (v *virtual) fwCfgFile(name string) string {
	return v.s.path("fwcfg-" + strings.ReplaceAll(name, "/", "-"))
}

// credential writes the whole SMBIOS string to a file, which keeps it off
// QEMU's command line.
func (v *virtual) credential(name, value string) error {
	s := "io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString([]byte(value))
	return os.WriteFile(v.s.path("cred", name), []byte(s), 0o600)
}

func (v *virtual) SetImage(Image) error {
	return errors.New("cannot change the image of a virtual machine: stage one into its other slot")
}

func (v *virtual) SetUserData(data string) error { return v.credential("kbuild.userdata", data) }

func cmpOr(v, def int) int {
	if v != 0 {
		return v
	}
	return def
}

func padToSector(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, (st.Size()+511)/512*512)
}

func (v *virtual) args(ctx context.Context) []string {
	accel := v.tree.accel(ctx, v.o.Log)
	a := append(v.tree.firmwareArgs(), accel...)
	const emulated = "tsc=reliable mitigations=off"
	if emulates(accel) && v.o.Kernel == "" {
		// An emulated processor that has to wait for the host makes the kernel
		// distrust its time stamp counter, and then each reading of the clock goes
		// through QEMU's lock. And an emulated processor has nothing to mitigate. The stub in the unified
		// kernel image appends this (systemd-stub(7)).
		a = append(a, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra="+emulated)
	}
	a = append(a, v.o.firmware().machine...)
	a = append(a, "-name", v.s.rec.Name, "-uuid", uuidOf(v.s.dir), "-nodefaults", "-display", "none",
		"-smp", strconv.Itoa(cmpOr(v.o.CPUs, 2)), "-m", strconv.Itoa(cmpOr(v.o.MemoryMB, 4096)),
		"-device", "virtio-rng-pci",
		// cache=unsafe still hands everything that the guest flushes to the host's
		// kernel (QEMU's bdrv_co_flush), so the death of QEMU loses nothing that was
		// synced; only the host's own does. etcd syncs all the time.
		"-drive", "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file="+v.s.path("disk.qcow2"),
		"-drive", "if=none,id=checker,format=raw,readonly=on,file="+v.s.path("checker.img"),
		"-device", "virtio-blk-pci,drive=checker,serial="+guest.Drive,
		"-chardev", "file,id=console,append=on,path="+v.s.path("console.log"), "-serial", "chardev:console",
		"-device", "virtio-serial-pci,max_ports=2", // port 0 is the console's; each has queues that QEMU polls
		"-chardev", "socket,id=checker,server=on,wait=off,path="+v.client.Path,
		"-device", "virtserialport,chardev=checker,name="+guest.Port,
		"-qmp", "unix:"+v.s.path("qmp.sock")+",server=on,wait=off",
	)
	if v.o.Kernel == "" {
		a = append(a,
			"-drive", "if=pflash,format=raw,readonly=on,file="+filepath.Join(v.tree.dir, v.o.firmware().code),
			"-drive", "if=pflash,format=raw,file="+v.s.path("vars.fd"),
			"-device", "virtio-blk-pci,drive=disk,bootindex=1")
	} else {
		cmdline := v.o.Cmdline
		if emulates(accel) {
			cmdline += " " + emulated
		}
		// Of what QEMU has, NVMe is what a kernel without an initrd finds.
		a = append(a, "-kernel", v.o.Kernel, "-append", cmdline, "-device", "nvme,drive=disk,serial=kbuild")
	}
	a = append(a, v.netdev()...)
	if v.o.Watchdog {
		a = append(a, "-device", "i6300esb")
	}
	if v.o.NoCloud != nil {
		a = append(a, "-drive", "if=none,id=cidata,format=raw,readonly=on,file="+v.s.path("cidata.iso"), "-device", "virtio-blk-pci,drive=cidata")
	}
	if v.o.FwCfg != "" {
		a = append(a, "-fw_cfg", "name=opt/io.systemd.credentials/kbuild.userdata,file="+v.s.path("fwcfg"))
	}
	for _, name := range slices.Sorted(maps.Keys(v.o.FwCfgFiles)) {
		a = append(a, "-fw_cfg", "name="+name+",file="+v.fwCfgFile(name))
	}
	creds, _ := filepath.Glob(v.s.path("cred", "*"))
	for _, f := range creds {
		a = append(a, "-smbios", "type=11,path="+f)
	}
	return a
}

// netdev is the network card: on the machine's Network, or on QEMU's own net
// without router or name server.
func (v *virtual) netdev() []string {
	if v.o.Network != nil {
		return v.o.Network.netdev(v.s.dir)
	}
	net := "user,id=net,restrict=on,ipv6=off"
	if v.o.Serve != "" {
		// QEMU starts the command for each connection; the checker's file is a
		// program for the host, too.
		net += ",guestfwd=tcp:" + ServedAt + "-cmd:" + v.s.path("checker.img") + " relay " + v.o.Serve
	}
	if v.o.APIPort != 0 {
		net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:6443", v.o.APIPort)
	}
	return []string{"-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile="}
}

func (v *virtual) Start(ctx context.Context) error {
	if ok, _ := v.Running(); ok {
		return errors.New("cannot start the machine: it is running")
	}
	for _, sock := range []string{v.client.Path, v.s.path("qmp.sock")} {
		os.Remove(sock)
	}
	log, err := os.OpenFile(v.s.path("qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := v.tree.command(context.Background(), qemuProgram, v.args(ctx)...)
	tap, err := v.o.Network.tap(v.s.rec.Name)
	if err != nil {
		return err
	}
	if tap != nil {
		defer tap.Close()
		cmd.ExtraFiles = []*os.File{tap}
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a kept machine outlives the terminal
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start QEMU: %w", err)
	}
	v.watch(cmd)
	v.s.rec.Machine = procOf(cmd.Process.Pid)
	if err := v.s.save(); err != nil {
		return errors.Join(err, v.PowerCut())
	}
	return v.reach(ctx)
}

// reach waits until QEMU's monitor answers.
func (v *virtual) reach(ctx context.Context) error {
	for {
		err := v.monitor(ctx, func(*qmp) error { return nil })
		if err == nil {
			return nil
		}
		select {
		case <-v.ended:
			out, _ := os.ReadFile(v.s.path("qemu.log"))
			return fmt.Errorf("cannot start QEMU: %s: %s", v.state, lastLines(string(out), 5))
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx), v.PowerCut())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// monitor connects to QEMU's monitor for as long as use takes. QEMU serves one
// client at a time, and another process may want to stop the machine.
func (v *virtual) monitor(ctx context.Context, use func(*qmp) error) error {
	q, err := dialQMP(ctx, v.s.path("qmp.sock"))
	if err != nil {
		return err
	}
	defer q.close()
	return use(q)
}

func (v *virtual) watch(cmd *exec.Cmd) {
	ended := make(chan struct{})
	v.ended = ended
	go func() {
		cmd.Wait()
		v.state = cmd.ProcessState
		close(ended)
	}()
}

func (v *virtual) Reboot(ctx context.Context) error {
	defer v.client.Close()
	return v.monitor(ctx, func(q *qmp) error {
		if err := askReboot(ctx, v); err != nil {
			return err
		}
		if err := q.wait(ctx, "RESET"); err != nil {
			return fmt.Errorf("the machine does not shut down for the reboot: %w", err)
		}
		return nil
	})
}

func (v *virtual) PowerCut() error {
	v.client.Close()
	if err := v.s.rec.Machine.kill(); err != nil {
		return err
	}
	if v.ended != nil {
		<-v.ended
	}
	return nil
}

func (v *virtual) Stop(ctx context.Context) error {
	if ok, _ := v.Running(); !ok {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, 20*time.Second)
	err := v.Ask(ask, guest.CmdExec, guest.ExecArgs{Argv: []string{"systemctl", "poweroff", "--no-block"}}, nil)
	cancel()
	if err != nil { // its checker does not answer yet, or another process asks it something
		ask, cancel := context.WithTimeout(ctx, 20*time.Second)
		err = v.monitor(ask, func(q *qmp) error {
			_, err := q.do(ask, "system_powerdown", nil)
			return err
		})
		cancel()
	}
	for range 1200 {
		if ok, _ := v.Running(); !ok {
			return v.PowerCut()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx), v.PowerCut())
		}
	}
	return errors.Join(err, errors.New("the machine did not power off within 120 s"), v.PowerCut())
}

func (v *virtual) Ask(ctx context.Context, cmd string, args, out any) error {
	return v.client.Ask(ctx, cmd, args, out)
}

func (v *virtual) Running() (bool, error) {
	if v.s.rec.Machine.alive() {
		return true, nil
	}
	if v.ended != nil {
		<-v.ended
		if v.state.Success() {
			return false, errors.New("it was powered off")
		}
		return false, fmt.Errorf("QEMU ended with %s; see %s and %s", v.state, v.s.path("qemu.log"), v.s.path("console.log"))
	}
	return false, fmt.Errorf("QEMU is not running; see %s and %s", v.s.path("qemu.log"), v.s.path("console.log"))
}

func (v *virtual) Places() Places {
	return Places{Dir: v.s.dir, Console: v.s.path("console.log"), Disk: v.s.path("disk.qcow2"), PID: v.s.rec.Machine.PID,
		Journal: "on the disk's var partition, /var/log/journal"}
}

func (v *virtual) Close() error {
	if v.o.Keep {
		v.client.Close()
		return nil
	}
	return errors.Join(v.PowerCut(), v.s.close())
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// ConsoleTail returns the last lines of the machine's console.
func ConsoleTail(m Machine, lines int) string {
	f, err := os.Open(m.Places().Console)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 1<<20 {
		f.Seek(-1<<20, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), lines)
}
