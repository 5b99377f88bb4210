package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
)

// The initrd is systemd with what it needs to find the slot, check and mount
// it, create the disk's partitions and mount var. Its programs are copied from the
// node's own root.
var (
	initrdPrograms = []string{
		"usr/lib/systemd/systemd", "usr/lib/systemd/systemd-executor", "usr/lib/systemd/systemd-journald",
		"usr/lib/systemd/systemd-udevd", "usr/bin/udevadm", "usr/lib/systemd/systemd-modules-load",
		"usr/lib/systemd/systemd-veritysetup", "usr/lib/systemd/systemd-shutdown", "usr/lib/systemd/systemd-fsck",
		"usr/lib/systemd/systemd-makefs", "usr/bin/systemd-repart", "usr/lib/systemd/systemd-sysroot-fstab-check",
		"usr/lib/systemd/system-generators/systemd-fstab-generator",
		"usr/lib/systemd/system-generators/systemd-veritysetup-generator",
		"usr/lib/systemd/system-generators/systemd-debug-generator",
		"usr/bin/systemctl", "usr/bin/journalctl", "usr/bin/systemd-tmpfiles",
		"usr/bin/kmod", "usr/sbin/modprobe", "usr/bin/mount", "usr/bin/umount", "usr/sbin/dmsetup",
		"usr/sbin/fsck", "usr/sbin/fsck.ext4", "usr/sbin/e2fsck", "usr/sbin/mkfs.ext4", "usr/sbin/mke2fs",
		"usr/bin/sh", "usr/bin/dash", "usr/bin/cat", "usr/bin/mkdir", "usr/bin/mv", "usr/bin/tr", "usr/bin/grep",
		"usr/bin/chmod", "usr/bin/sync", "usr/bin/sleep",
	}
	// Loaded with dlopen, so no ELF header names them.
	initrdLibraries = []string{
		"libcryptsetup.so.12", "libkmod.so.2", "libblkid.so.1", "libmount.so.1", "libfdisk.so.1", "libcrypto.so.3",
		"libnss_files.so.2", "libdevmapper.so.1.02.1",
	}
	initrdFiles = []string{
		"usr/lib/udev/rules.d/50-udev-default.rules", "usr/lib/udev/rules.d/60-persistent-storage.rules",
		"usr/lib/udev/rules.d/55-dm.rules", "usr/lib/udev/rules.d/60-persistent-storage-dm.rules",
		"usr/lib/udev/rules.d/95-dm-notify.rules", "usr/lib/udev/rules.d/60-block.rules",
		"usr/lib/udev/rules.d/80-drivers.rules", "usr/lib/udev/rules.d/99-systemd.rules",
		"usr/lib/os-release", "etc/passwd", "etc/group", "etc/mke2fs.conf", "usr/lib/tmpfiles.d/systemd.conf",
	}
	initrdUnits = []string{
		"initrd.target", "initrd-root-fs.target", "initrd-root-device.target", "initrd-usr-fs.target", "initrd-fs.target",
		"initrd-switch-root.target", "initrd-switch-root.service", "initrd-cleanup.service", "initrd-parse-etc.service",
		"initrd-udevadm-cleanup-db.service", "sysinit.target", "basic.target", "local-fs.target", "local-fs-pre.target",
		"sockets.target", "paths.target", "timers.target", "slices.target", "swap.target", "cryptsetup.target",
		"veritysetup.target", "veritysetup-pre.target", "emergency.target", "rescue.target", "shutdown.target",
		"umount.target", "final.target", "reboot.target", "poweroff.target", "systemd-reboot.service",
		"systemd-poweroff.service", "systemd-journald.service", "systemd-journald.socket",
		"systemd-journald-dev-log.socket", "systemd-udevd.service", "systemd-udevd-control.socket",
		"systemd-udevd-kernel.socket", "systemd-udev-trigger.service", "systemd-modules-load.service",
		"systemd-fsck-root.service", "systemd-fsck@.service", "modprobe@.service", "kmod-static-nodes.service",
		"systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service", "systemd-repart.service",
	}
	initrdWants = map[string][]string{
		"sockets.target": {"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket"},
		"sysinit.target": {"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-journald.service", "veritysetup.target",
			"systemd-modules-load.service", "kmod-static-nodes.service", "systemd-tmpfiles-setup-dev.service"},
		"initrd-root-fs.target": {"systemd-repart.service"},
	}
	// Disks of the hypervisors and clouds, and what is needed to read the root.
	// Modules that are built into the kernel are skipped.
	initrdModules = []string{
		"virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ahci", "ata_piix", "xen_blkfront", "hv_storvsc", "hv_vmbus", "vmw_pvscsi",
		"mptspi", "mmc_block", "dm_mod", "dm_verity", "erofs", "loop", "ext4", "crc32c_intel", "sha256_ssse3",
		"qemu_fw_cfg", "dmi_sysfs", "efivarfs", "autofs4",
	}
)

// makeInitrd collects the initrd from the root directory, and adds the files of
// overlay, which replace existing ones. It runs depmod of that root in a directory of its own below work.
func makeInitrd(ctx context.Context, root, kernel string, overlay fs.FS, work string) (archive, error) {
	a := archive{}
	in := collector{root: root, to: a, done: map[string]bool{}}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "sysroot", "etc", "var/lib", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"} {
		if err := a.add(dir, entry{mode: fs.ModeDir | 0o755, origin: "the initrd"}); err != nil {
			return nil, err
		}
	}
	links := map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
		"init": "usr/lib/systemd/systemd", "usr/lib/systemd/system/default.target": "initrd.target",
		"var/run":            "../run",
		"etc/initrd-release": "../usr/lib/os-release", "etc/os-release": "../usr/lib/os-release"}
	for target, units := range initrdWants {
		for _, unit := range units {
			links["usr/lib/systemd/system/"+target+".wants/"+unit] = "../" + unit
		}
	}
	for name, target := range links {
		if err := a.add(name, entry{mode: fs.ModeSymlink | 0o777, data: []byte(target), origin: "the initrd"}); err != nil {
			return nil, err
		}
	}
	if err := a.add("etc/machine-id", entry{mode: 0o444, origin: "the initrd"}); err != nil {
		return nil, err
	}
	var want []string
	want = append(append(want, initrdPrograms...), initrdFiles...)
	for _, u := range initrdUnits {
		want = append(want, "usr/lib/systemd/system/"+u)
	}
	for _, l := range initrdLibraries {
		want = append(want, "usr/lib/x86_64-linux-gnu/"+l)
	}
	for _, name := range want {
		if err := in.take(name); err != nil {
			return nil, fmt.Errorf("cannot put %s into the initrd: %w", name, err)
		}
	}
	if err := in.modules(ctx, kernel, work); err != nil {
		return nil, fmt.Errorf("cannot put the kernel's modules into the initrd: %w", err)
	}
	err := fs.WalkDir(overlay, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(overlay, name)
		if err != nil {
			return err
		}
		return a.add(name, entry{mode: 0o644, data: b, origin: "overlay"})
	})
	return a, err
}

// collector copies files of a root into an archive, with the libraries and
// the targets of links that they need.
type collector struct {
	root string
	to   archive
	done map[string]bool
}

func (c *collector) take(name string) error {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} { // merged /usr
		if strings.HasPrefix(name, dir+"/") {
			name = "usr/" + name
		}
	}
	if c.done[name] {
		return nil
	}
	c.done[name] = true
	file := filepath.Join(c.root, name)
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		if err := c.to.add(name, entry{mode: fs.ModeSymlink | 0o777, data: []byte(target), origin: "the root"}); err != nil {
			return err
		}
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(name), target)
		}
		return c.take(target)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a link", name)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := c.to.add(name, entry{mode: info.Mode().Perm(), data: b, origin: "the root"}); err != nil {
		return err
	}
	libs, err := libraries(c.root, name)
	if err != nil {
		return err
	}
	for _, l := range libs {
		if err := c.take(l); err != nil {
			return fmt.Errorf("%s, which %s needs: %w", l, name, err)
		}
	}
	return nil
}

// modules adds the initrd's modules, those that they depend on, and an index.
func (c *collector) modules(ctx context.Context, kernel, work string) error {
	dir := path.Join("usr/lib/modules", kernel)
	b, err := os.ReadFile(filepath.Join(c.root, dir, "modules.dep"))
	if err != nil {
		return err
	}
	needs, byName := map[string][]string{}, map[string]string{}
	for line := range strings.Lines(string(b)) {
		file, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[file] = strings.Fields(deps)
		name, _, _ := strings.Cut(path.Base(file), ".")
		byName[strings.ReplaceAll(name, "-", "_")] = file
	}
	var take []string
	for _, m := range initrdModules {
		if file, ok := byName[m]; ok {
			take = append(append(take, file), needs[file]...)
		}
	}
	slices.Sort(take)
	take = slices.Compact(take)
	if len(take) == 0 {
		return errors.New("modules.dep has none of the modules that are needed")
	}
	take = append(take, "modules.order", "modules.builtin", "modules.builtin.modinfo")
	// depmod wants them in a tree.
	index := filepath.Join(work, "modules")
	for _, file := range take {
		b, err := os.ReadFile(filepath.Join(c.root, dir, file))
		if err != nil {
			return err
		}
		if err := c.to.add(path.Join(dir, file), entry{mode: 0o644, data: b, origin: "the root"}); err != nil {
			return err
		}
		at := filepath.Join(index, "lib/modules", kernel, file)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, b, 0o644); err != nil {
			return err
		}
	}
	cmd := base.Tree{Dir: c.root}.Command(ctx, []base.Bind{{Name: "modules", Dir: index, Writable: true}}, nil, "depmod", "-b", "/tmp/modules", kernel)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, strings.TrimSpace(out.String()))
	}
	made, err := filepath.Glob(filepath.Join(index, "lib/modules", kernel, "modules.*"))
	if err != nil {
		return err
	}
	for _, file := range made {
		name := path.Join(dir, filepath.Base(file))
		if _, ok := c.to[name]; ok {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := c.to.add(name, entry{mode: 0o644, data: b, origin: "depmod"}); err != nil {
			return err
		}
	}
	return os.RemoveAll(index)
}
