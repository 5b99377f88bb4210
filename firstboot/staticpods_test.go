package firstboot

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/templates"
)

// An emulated machine's API server has longer than kubeadm's four minutes before
// the kubelet ends it; what the user says counts everywhere.
func TestStartupLimit(t *testing.T) {
	for _, c := range []struct {
		virtualization string
		timeout        time.Duration
		want           time.Duration
		probe          string
	}{
		{"kvm", 4 * time.Minute, 4 * time.Minute, "failureThreshold: 24"},
		{"none", 4 * time.Minute, 4 * time.Minute, "failureThreshold: 24"},
		{"qemu", 4 * time.Minute, 20 * time.Minute, "failureThreshold: 120"},
		{"qemu", 2 * time.Minute, 2 * time.Minute, "failureThreshold: 12"},
		{"kvm", 30 * time.Minute, 30 * time.Minute, "failureThreshold: 180"},
	} {
		m := newTestMachine(t, map[string]string{userDataFile: shortUserData})
		if err := runSteps(t.Context(), m.Machine, firstSteps()...); err != nil {
			t.Fatal(err)
		}
		m.Host.Virtualization = func() string { return c.virtualization }
		m.Node.Cluster.APIServer.TimeoutForControlPlane = &metav1.Duration{Duration: c.timeout}
		if got := startupLimit(m.Machine); got != c.want {
			t.Errorf("%s, %s: limit %s, want %s", c.virtualization, c.timeout, got, c.want)
		}
		ms, err := manifests(m.Machine, append(templates.ControlPlanePods(podParams(m.Machine))[:1], templates.EtcdPod(podParams(m.Machine)))...)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range ms {
			_, startup, _ := strings.Cut(string(f.data), "startupProbe:")
			if !strings.Contains(startup, c.probe) {
				t.Errorf("%s, %s: %s has the start-up probe %.120s, want %s", c.virtualization, c.timeout, f.file, startup, c.probe)
			}
		}
	}
}
