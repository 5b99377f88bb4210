package base

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Links of the node's read-only root, relative so that they also hold when
// the tree is looked at from outside. What they point to is made at boot by
// tmpfiles.d, or by the program that writes it.
var nodeLinks = map[string]string{
	"etc/kubernetes":    "../var/lib/kbuild/kubernetes",
	"etc/cni":           "../var/lib/kbuild/cni",
	"opt/cni":           "../var/lib/kbuild/opt-cni",
	"etc/hosts":         "../run/kbuild/hosts",
	"etc/hostname":      "../var/lib/kbuild/hostname", // PID 1 reads it: /var is mounted in the initrd
	"etc/resolv.conf":   "../run/systemd/resolve/stub-resolv.conf",
	"etc/mtab":          "../proc/self/mounts",
	"etc/vconsole.conf": "default/keyboard", // tmpfiles.d would try to make it
}

// Directories that must exist, since the root is read-only on the node.
var nodeDirs = []string{
	"efi", "boot", "var",
	"usr/libexec/kubernetes/kubelet-plugins/volume/exec", // the kubelet insists on it
	"etc/credstore", "etc/containerd", "etc/systemd/system",
}

// nodeGarbage are glob patterns of what installing leaves behind, and of what
// only an installer or a person at a prompt would use.
var nodeGarbage = []string{
	"initrd.img*", "vmlinuz*", "boot/*", "var/*", "run/*", "tmp/*", "root/.*", "root/*",
	"etc/.pwd.lock", "etc/.resolv.conf*", "etc/*-", "etc/fstab", "etc/apt", "etc/dpkg", "etc/perl", "etc/kernel",
	"etc/initramfs-tools", "etc/debconf.conf", "etc/cron*", "etc/init.d", "etc/rc?.d", "etc/logrotate.d",
	"etc/update-motd.d", "etc/vconsole.conf", "etc/skel", "etc/ca-certificates/update.d", "etc/opt", "etc/issue*", "etc/motd",
	"etc/e2scrub.conf", "etc/network", "etc/dhcp", "etc/resolv.conf", "etc/hosts", "etc/hostname", "etc/machine-id", "etc/mtab",
	"etc/systemd/system/*.wants/e2scrub*", "etc/systemd/system/*.wants/dpkg-db-backup*",
	"usr/bin/dpkg*", "usr/sbin/dpkg*", "usr/bin/update-alternatives", "usr/lib/dpkg", "usr/share/dpkg",
	"usr/share/perl*", "usr/lib/*-linux-gnu/perl*", "usr/share/man", "usr/share/info", "usr/share/locale",
	"usr/share/lintian", "usr/share/bug", "usr/share/menu", "usr/share/doc-base", "usr/share/bash-completion", "usr/share/zsh", "usr/share/fish",
	"usr/share/metainfo", "usr/share/pixmaps", "usr/share/debconf", "usr/share/initramfs-tools", "usr/share/base-files",
	"usr/lib/modules/*/build", "usr/lib/modules/*/source", "usr/lib/systemd/system/dpkg-db-backup.*", "usr/lib/systemd/system/e2scrub*",
	"usr/lib/udev/hwdb.d",  // compiled into hwdb.bin
	"usr/lib/systemd/boot", // boot loaders; the tools tree has the one that disks get
}

// finishNode turns what mmdebstrap made into a node's root: reproducible, and
// complete without ever being written to.
func finishNode(root string) error {
	if err := moveKernel(root); err != nil {
		return err
	}
	if err := removeAll(root, nodeGarbage); err != nil {
		return err
	}
	for _, dir := range nodeDirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	// Empty, not missing: a unit of the initrd mounts the machine's own over it,
	// and systemd must not treat the boot as a first boot, which writes to /etc.
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444); err != nil {
		return err
	}
	// PID 1 never lets the clock be earlier than this file; the disk is made
	// with the build's own time.
	if err := os.WriteFile(filepath.Join(root, "usr/lib/clock-epoch"), nil, 0o644); err != nil {
		return err
	}
	for name, target := range nodeLinks {
		path := filepath.Join(root, name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	if err := dropCompiledPython(root); err != nil {
		return err
	}
	return setTimes(root, time.Unix(treeTime, 0))
}

// finishTools removes what differs from run to run in a tree whose files never
// get into an output.
func finishTools(root string) error {
	return removeAll(root, []string{"var/cache/*", "var/log/*", "var/lib/apt", "run/*", "tmp/*", "etc/resolv.conf", "etc/hostname", "etc/*-", "etc/.pwd.lock"})
}

// moveKernel puts the one kernel where systemd's tools look for it.
func moveKernel(root string) error {
	kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(kernels) != 1 {
		return fmt.Errorf("the tree should hold one kernel, but holds %d: %q", len(kernels), kernels)
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if err := os.Rename(kernels[0], filepath.Join(root, "usr/lib/modules", version, "vmlinuz")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(root, "boot/config-"+version), filepath.Join(root, "usr/lib/modules", version, "config"))
}

func removeAll(root string, patterns []string) error {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("bad pattern %q: %w", pattern, err)
		}
		for _, path := range paths {
			if base := filepath.Base(path); base == "." || base == ".." {
				continue
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func dropCompiledPython(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "__pycache__" {
			dirs = append(dirs, path)
			return fs.SkipDir
		}
		return err
	})
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// setTimes gives every entry below root the same time.
func setTimes(root string, t time.Time) error {
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(paths) // a directory after its entries
	for _, path := range paths {
		ts := []unix.Timespec{{Sec: t.Unix()}, {Sec: t.Unix()}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot set the time of %s: %w", path, err)
		}
	}
	return nil
}
