package node

import (
	"log/slog"
	"os"
	"path"
	"testing"

	"github.com/kbuild/kbuild/firstboot/host"
)

func TestCgroupDriver(t *testing.T) {
	baked, err := os.ReadFile("../../templates/root/etc/containerd/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no configuration": {nil, ""},
		"an image's":       {map[string]string{"/etc/containerd/config.toml": string(baked)}, "systemd"},
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
