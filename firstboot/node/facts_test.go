package node

import (
	"bytes"
	"log/slog"
	"os"
	"path"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

func TestCgroupDriver(t *testing.T) {
	baked := func(major string) map[string]string {
		b, err := os.ReadFile("../../templates/containerd/config-" + major + ".toml")
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"/etc/containerd/config.toml": string(b)}
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no configuration": {nil, ""},
		"containerd 1's":   {baked("1"), "systemd"},
		"containerd 2's":   {baked("2"), "systemd"},
		"cgroupfs":         {map[string]string{"/etc/containerd/config.toml": "[a]\n  SystemdCgroup = false\n"}, "cgroupfs"},
		"silent":           {map[string]string{"/etc/containerd/config.toml": "# SystemdCgroup = false\nversion = 2\n"}, ""},
		"the extension's": {map[string]string{"/etc/containerd/config.toml": "SystemdCgroup = false\n",
			"/usr/lib/kbuild/containerd.toml": "SystemdCgroup = true\n"}, "systemd"},
	} {
		h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Root.Close()
		for file, text := range c.files {
			if err := h.MkdirAll(path.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := h.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := cgroupDriver(h); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A node that an earlier image has frozen, and one that another runtime's image
// boots, has the driver of the runtime that runs now.
func TestFrozenCgroupDriver(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	for _, dir := range []string{path.Dir(ConfigFile), "/etc/containerd"} {
		if err := h.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := &Machine{Host: h}
	if err := m.Freeze(&config.Node{Role: config.RoleInit, CgroupDriver: "systemd"}); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/etc/containerd/config.toml", []byte("SystemdCgroup = false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n, is, err := Load(h)
	if err != nil || !is || n.CgroupDriver != "cgroupfs" {
		t.Errorf("%+v, %v, %v", n, is, err)
	}
	if b, err := h.ReadFile(ConfigFile); err != nil || bytes.Contains(b, []byte("cgroupDriver")) {
		t.Errorf("%v: an earlier image could not read %s", err, b)
	}
}
