package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// disk reports what / and /var are, as the kernel says.
func disk() (guest.Disk, error) {
	var d guest.Disk
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return d, err
	}
	d.Cmdline = strings.TrimSpace(string(cmdline))
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return d, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[1] {
		case "/":
			d.RootSource, d.RootType = f[0], f[2]
			d.RootReadOnly = strings.HasPrefix(f[3]+",", "ro,")
		case "/var":
			d.VarSource, d.VarType = f[0], f[2]
		}
	}
	if err := os.WriteFile("/usr/.kbuild-test", nil, 0o600); err != nil {
		d.RootWrite = err.Error()
	} else {
		os.Remove("/usr/.kbuild-test")
	}
	// cryptsetup's naming: CRYPT-VERITY-UUID-NAME.
	if name, err := blockName("/"); err == nil {
		b, _ := os.ReadFile("/sys/class/block/" + name + "/dm/uuid")
		d.Verity = strings.HasPrefix(string(b), "CRYPT-VERITY-")
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/var", &st); err != nil {
		return d, err
	}
	d.VarBytes = int64(st.Blocks) * st.Bsize
	if name, err := blockName("/var"); err == nil {
		if d.DiskBytes, err = diskBytes(name); err != nil {
			return d, err
		}
	}
	if d.Partitions, err = partitions(); err != nil {
		return d, err
	}
	d.Routes, err = defaultRoutes()
	return d, err
}

// blockName finds the kernel's name of the block device below a mount point.
func blockName(at string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil {
		return "", err
	}
	to, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	return filepath.Base(to), err
}

// diskBytes is the size of the disk that device name is, or is a partition of.
func diskBytes(name string) (int64, error) {
	dir, err := filepath.EvalSymlinks("/sys/class/block/" + name)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	return sectors(filepath.Join(dir, "size"))
}

// sectors reads a size in the kernel's units of 512 bytes.
func sectors(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n * 512, err
}

// partitions asks udev, by way of lsblk: the kernel itself does not know the
// labels of partitions that were added while it ran.
func partitions() ([]guest.Part, error) {
	out, err := exec.Command("lsblk", "--bytes", "--json", "--list", "--output=PATH,TYPE,SIZE,PARTLABEL").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot run lsblk: %w", err)
	}
	var l struct {
		Blockdevices []struct {
			Path, Type, Partlabel string
			Size                  int64
		}
	}
	if err := json.Unmarshal(out, &l); err != nil {
		return nil, fmt.Errorf("cannot read what lsblk prints: %w", err)
	}
	var parts []guest.Part
	for _, b := range l.Blockdevices {
		if b.Type == "part" {
			parts = append(parts, guest.Part{Device: b.Path, Label: b.Partlabel, Bytes: b.Size})
		}
	}
	return parts, nil
}

// defaultRoutes lists the routes to everywhere, IPv4 and IPv6, as the kernel
// prints them, without those that reject.
func defaultRoutes() ([]string, error) {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, err
	}
	var routes []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			routes = append(routes, strings.Join(f[:3], " "))
		}
	}
	b, err = os.ReadFile("/proc/net/ipv6_route")
	if err != nil {
		return routes, nil // no IPv6
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" {
			routes = append(routes, f[9]+" IPv6")
		}
	}
	return routes, nil
}
