package testvm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// vmTree is a root directory with QEMU 10 or newer and OVMF in it. Its
// programs run through its own loader, so that nothing has to be mounted and
// root is not needed.
type vmTree struct{ dir string }

const qemuProgram = "qemu-system-x86_64"

// findVMTree returns the tree that KBUILD_VM_TREE names, or else this host's root.
func findVMTree(ctx context.Context) (vmTree, error) {
	t := vmTree{os.Getenv("KBUILD_VM_TREE")}
	if t.dir == "" {
		t.dir = "/"
	}
	hint := "set KBUILD_VM_TREE to a directory with Debian trixie's qemu-system-x86, qemu-utils and ovmf (`kbuild tree vm` prints the one in kbuild's cache), or install those"
	for _, f := range []string{"usr/bin/" + qemuProgram, "usr/bin/qemu-img", ovmfCode, ovmfVars} {
		if _, err := os.Stat(filepath.Join(t.dir, f)); err != nil {
			return t, fmt.Errorf("cannot start a VM: %w: %s", err, hint)
		}
	}
	out, err := t.command(ctx, qemuProgram, "--version").CombinedOutput()
	if err != nil {
		return t, fmt.Errorf("cannot run QEMU of %s: %w: %s", t.dir, err, out)
	}
	m := regexp.MustCompile(`version (\d+)`).FindSubmatch(out)
	if m == nil {
		return t, fmt.Errorf("cannot read the version of QEMU from %q", out)
	}
	// Emulation before 10.0 is about twenty times slower at hashing.
	if n, _ := strconv.Atoi(string(m[1])); n < 10 {
		return t, fmt.Errorf("cannot use QEMU %s of %s: want 10 or newer: %s", m[1], t.dir, hint)
	}
	return t, nil
}

const (
	ovmfCode = "usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "usr/share/OVMF/OVMF_VARS_4M.fd"
)

// firmware is OVMF's files in the tree, and the type of the machine for them:
// what checks signatures keeps its variables from the kernel by the processor's
// System Management Mode.
type firmware struct {
	code, vars string
	machine    []string
}

func (o Options) firmware() firmware {
	if o.SecureBoot {
		return firmware{"usr/share/OVMF/OVMF_CODE_4M.snakeoil.fd", "usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd",
			[]string{"-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"}}
	}
	return firmware{ovmfCode, ovmfVars, []string{"-machine", "q35"}}
}

// command is a program of the tree's /usr/bin.
func (t vmTree) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	in := func(p string) string { return filepath.Join(t.dir, p) }
	argv := append([]string{"--library-path", in("usr/lib/x86_64-linux-gnu"), in("usr/bin/" + name)}, args...)
	cmd := exec.CommandContext(ctx, in("lib64/ld-linux-x86-64.so.2"), argv...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+in("usr/lib/x86_64-linux-gnu/qemu"))
	return cmd
}

// firmwareArgs tell QEMU where its data lies.
func (t vmTree) firmwareArgs() []string {
	return []string{"-L", filepath.Join(t.dir, "usr/share/qemu"), "-L", filepath.Join(t.dir, "usr/share/seabios")}
}

// Emulated says whether this host has to emulate a VM's processor, which is
// several times slower than running it. It may take half a minute to find out,
// once a boot of the host.
func Emulated(ctx context.Context, log func(string, ...any)) (bool, error) {
	t, err := findVMTree(ctx)
	if err != nil {
		return false, err
	}
	return emulates(t.accel(ctx, log)), ctx.Err()
}

func emulates(accel []string) bool { return accel[1] != "kvm" }

// accel returns QEMU's arguments for the fastest way to run a guest that
// really works here. That /dev/kvm opens proves nothing (nested
// virtualisation): the firmware must come up on it. The outcome is kept until
// the host boots again.
func (t vmTree) accel(ctx context.Context, log func(string, ...any)) []string {
	tcg := []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	kvm := []string{"-accel", "kvm", "-cpu", "host"}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return tcg
	}
	f.Close()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	memo := filepath.Join(Scratch(), fmt.Sprintf("kvm-%x", sha256.Sum256([]byte(t.dir+string(boot))))[:20])
	if b, err := os.ReadFile(memo); err == nil {
		if string(b) == "works" {
			return kvm
		}
		return tcg
	}
	err = t.tryKVM(ctx, kvm)
	if ctx.Err() != nil {
		return tcg
	}
	said := "works"
	if err != nil {
		log("this host's KVM does not work, the VM is emulated: %v", err)
		said = "no"
	}
	if os.MkdirAll(Scratch(), 0o700) == nil {
		os.WriteFile(memo, []byte(said), 0o600)
	}
	if err != nil {
		return tcg
	}
	return kvm
}

// tryKVM boots the firmware without a disk and waits for its boot manager to
// say on the serial line that it finds nothing to boot.
func (t vmTree) tryKVM(ctx context.Context, kvm []string) error {
	dir, err := os.MkdirTemp("", "kbuild-kvm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	args := append(t.firmwareArgs(), kvm...)
	args = append(args, "-machine", "q35", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-net", "none",
		"-drive", "if=pflash,format=raw,readonly=on,file="+filepath.Join(t.dir, ovmfCode),
		"-serial", "file:"+filepath.Join(dir, "serial"))
	said, err := os.Create(filepath.Join(dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := t.command(ctx, qemuProgram, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		out, _ := os.ReadFile(said.Name())
		select {
		case err := <-ended:
			return fmt.Errorf("QEMU ended: %w: %s", errors.Join(err, ctx.Err()), firstLine(out))
		case <-time.After(100 * time.Millisecond):
		}
		serial, _ := os.ReadFile(filepath.Join(dir, "serial"))
		works := strings.Contains(string(serial), "BdsDxe")
		// QEMU only halts the guest on an error of KVM's.
		if !works && !strings.Contains(string(out), "internal error") {
			continue
		}
		cancel()
		<-ended
		if !works {
			return errors.New(firstLine(out))
		}
		return nil
	}
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
