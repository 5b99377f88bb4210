package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// prepare sets a systemd-nspawn container up so that a kubelet and containerd can
// run in it; a real machine needs none of this. It runs before both.
func prepare() error {
	return errors.Join(fakeSysctls(), cgroupsWritable(), containerdConfig(),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")) // containerd hands mounts on
}

// fakeSysctls mounts files over the kernel settings that the kubelet insists on
// (kubelet's container manager, setupKernelTunables): they are the host's, and
// read-only here.
func fakeSysctls() error {
	for name, value := range map[string]string{
		"kernel/panic": "10", "kernel/panic_on_oops": "1",
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		fake := filepath.Join("/run/kbuild-lane", strings.ReplaceAll(name, "/", "_"))
		if err := os.MkdirAll(filepath.Dir(fake), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(fake, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(fake, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount a file over /proc/sys/%s: %w", name, err)
		}
	}
	return nil
}

// cgroupsWritable makes the controllers' hierarchies of cgroup v1 writable.
// systemd-nspawn leaves only systemd's own so.
func cgroupsWritable() error {
	dirs, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil || st.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		if li, err := os.Lstat(dir); err != nil || li.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot make %s writable: %w", dir, err)
		}
	}
	return nil
}

// containerdConfig mounts a changed copy over the image's configuration of
// containerd: on cgroup v1 there is no systemd driver, and where the host's
// root lacks CAP_SYS_RESOURCE no process may be made safer from the OOM killer
// than its parent.
func containerdConfig() error {
	const file = "/etc/containerd/config.toml"
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s := string(b)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); errors.Is(err, fs.ErrNotExist) {
		s = strings.ReplaceAll(s, "SystemdCgroup = true", "SystemdCgroup = false")
	}
	if !hasSysResource() && !strings.Contains(s, "restrict_oom_score_adj") {
		var head string
		for line := range strings.Lines(s) {
			t := strings.NewReplacer(`"`, "", `'`, "", " ", "").Replace(strings.TrimSpace(line))
			if t == "[plugins.io.containerd.grpc.v1.cri]" || t == "[plugins.io.containerd.cri.v1.runtime]" {
				head = line
			}
		}
		if head == "" {
			s += "\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n"
		} else {
			s = strings.Replace(s, head, strings.TrimRight(head, "\n")+"\n  restrict_oom_score_adj = true\n", 1)
		}
	}
	if s == string(b) {
		return nil
	}
	copied := "/run/kbuild-lane/containerd.toml"
	if err := os.WriteFile(copied, []byte(s), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(copied, file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount a file over %s: %w", file, err)
	}
	return nil
}

func hasSysResource() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
