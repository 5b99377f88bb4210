package kubelet

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// TestPatched: the user's patches change the configuration where this version's
// kubeadm has such patches, but not what the instance's file says.
func TestPatched(t *testing.T) {
	const (
		conf     = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 110\n"
		instance = "containerRuntimeEndpoint: \"unix:///run/ours.sock\"\n"
		patch    = "maxPods: 7\ncontainerRuntimeEndpoint: unix:///run/other.sock\n"
		changed  = "apiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: unix:///run/SOCKET.sock\nkind: KubeletConfiguration\nmaxPods: 7\n"
	)
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	m := &node.Machine{Host: h, Node: &config.Node{}}
	makes := func(version, instance, want string) {
		t.Helper()
		if m.Baked.Release, err = images.Lookup(version); err != nil {
			t.Fatal(err)
		}
		got, err := patched(m, []byte(conf))
		if err == nil && instance != "" {
			got, err = applyInstanceConfig(got, []byte(instance))
		}
		if says, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", version, err, says)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%s: %q (%v), want %q", version, got, err, want)
		}
	}
	makes("v1.37.2", "", conf)
	m.Node.Init.Patches = "/etc/patches"
	makes("v1.37.2", instance, "!/etc/patches")
	makes("v1.24.17", "", conf)
	if err := h.WriteFile("/etc/patches/kubeletconfiguration+merge.yaml", []byte(patch), 0o600); err != nil {
		t.Fatal(err)
	}
	makes("v1.24.17", "", "!kubeletconfiguration+merge.yaml")
	makes("v1.25.0", "", strings.Replace(changed, "SOCKET", "other", 1))
	makes("v1.37.2", instance, strings.Replace(changed, "SOCKET", "ours", 1))
	if err := h.WriteFile("/etc/patches/corednsdeployment.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	makes("v1.30.0", "", "!corednsdeployment")
}
