package testvm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cgroupV2 says whether the host has cgroup v2 alone.
func cgroupV2() bool {
	var st syscall.Statfs_t
	return syscall.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// makeCgroups makes a cgroup called name in every hierarchy of the host, below
// the cgroup that this process is in, so that its limits hold for the machine
// too. On a host where systemd manages cgroup v2 none is made: a scope unit
// stands in (see container.command).
func makeCgroups(name string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var made []string
	for line := range strings.Lines(string(b)) {
		// "4:memory:/a/b", "9:name=systemd:/", "0::/"
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		at := cgroupMount(string(mounts), f[1])
		if at == "" {
			continue
		}
		parent := filepath.Join(at, f[2])
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return made, fmt.Errorf("cannot make a cgroup for the machine: %w: are you root?", err)
		}
		made = append(made, dir)
		switch f[1] {
		case "cpuset": // a new one is empty, and takes no process
			for _, k := range []string{"cpuset.cpus", "cpuset.mems"} {
				v, err := os.ReadFile(filepath.Join(parent, k))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, k), v, 0o644)
				}
				if err != nil {
					return made, fmt.Errorf("cannot set up the machine's cgroup: %w", err)
				}
			}
		case "memory":
			// The parent may have set it already; then it cannot be written.
			os.WriteFile(filepath.Join(dir, "memory.use_hierarchy"), []byte("1"), 0o644)
		}
	}
	return made, nil
}

// cgroupMount finds where the hierarchy with the controllers (of
// /proc/self/cgroup; empty for v2) is mounted. The last mount wins: it is on
// top.
func cgroupMount(mounts, controllers string) string {
	at := ""
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		opts := "," + f[3] + ","
		switch {
		case controllers == "" && f[2] == "cgroup2":
			at = f[1]
		case controllers != "" && f[2] == "cgroup" && strings.Contains(opts, ","+strings.Split(controllers, ",")[0]+","):
			at = f[1]
		}
	}
	return at
}
