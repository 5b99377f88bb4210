package config

import (
	"strings"
	"testing"
)

// The kubelet's cgroup driver is that of the machine's container runtime,
// whichever that is.
func TestCgroupDriver(t *testing.T) {
	for _, c := range []struct{ runtime, said, want string }{
		{"", "", "systemd"},
		{"systemd", "systemd", "systemd"},
		{"cgroupfs", "", "cgroupfs"},
		{"cgroupfs", "cgroupfs", "cgroupfs"},
		{"cgroupfs", "systemd", "!uses the cgroup driver cgroupfs"},
		{"", "cgroupfs", "!uses the cgroup driver systemd"},
	} {
		m := machine()
		m.CgroupDriver = c.runtime
		text := short
		if c.said != "" {
			text += "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: " + c.said + "\n"
		}
		n, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(text)})
		if why, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%+v: error %v", c, err)
			}
			continue
		}
		if err != nil || n.Kubelet["cgroupDriver"] != c.want {
			t.Errorf("%+v: %v, %v", c, n.Kubelet["cgroupDriver"], err)
		}
		// A frozen node is checked again at each boot.
		if _, err := Validate(n, baked(t)); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
