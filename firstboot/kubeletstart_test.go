package firstboot

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
)

// TestKubeletStart starts the kubelet when what it runs with changed, when it
// does not run, and after a reboot; and never else.
func TestKubeletStart(t *testing.T) {
	m := after(t, stepCertsCA(), stepKubeconfigKubelet())(t)
	restarts, state := 0, "inactive"
	m.Host.Systemd.Restart = func(context.Context, string) error { restarts++; state = "active"; return nil }
	m.Host.Systemd.Active = func(context.Context, string) (string, error) { return state, nil }
	m.Node.Kubelet["healthzPort"] = float64(0) // no kubelet answers in a test
	expect := func(what string, want int) {
		t.Helper()
		if err := runSteps(t.Context(), m, stepKubeletStart()); err != nil || restarts != want {
			t.Fatalf("%s: %v, %d starts, want %d", what, err, restarts, want)
		}
	}
	expect("first boot", 1)
	env, err := m.Host.ReadFile(kubelet.FlagsFile)
	if want := "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote --container-runtime-endpoint=/run/containerd/containerd.sock\"\n"; err != nil || string(env) != want {
		t.Errorf("%s is %q (%v), want %q", kubelet.FlagsFile, env, err, want)
	}
	for name, mode := range map[string]os.FileMode{kubelet.ConfigFile: 0o644, kubelet.FlagsFile: 0o644, kubelet.Dir: 0o700, node.KubeletKubeconfig: 0o600} {
		if st, err := os.Stat(m.Host.Path(name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, want mode %o", name, err, mode)
		}
	}
	expect("all is so", 1)
	state = "failed"
	expect("the kubelet failed", 2)
	m.Node.Init.NodeRegistration.KubeletExtraArgs = config.Args{"v": {"4"}}
	expect("another flag", 3)
	if err := os.WriteFile(m.Host.Path(kubelet.ConfigFile), []byte("kind: KubeletConfiguration\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect("somebody's configuration", 4)
	if err := os.RemoveAll(m.Host.Path("/run/kbuild")); err != nil {
		t.Fatal(err)
	}
	state = "inactive"
	expect("reboot", 5)
}

// The kubelet waits for the images only where it would find static pods.
func TestStaticPodsNeed(t *testing.T) {
	m := initMachine(t)
	if needs := staticPodsNeed(m); needs != nil {
		t.Errorf("an empty disk needs %q", needs)
	}
	if err := runSteps(t.Context(), m, stepControlPlane()); err != nil {
		t.Fatal(err)
	}
	if needs := staticPodsNeed(m); !slices.Equal(needs, []string{"images"}) {
		t.Errorf("with static pods it needs %q, want the images", needs)
	}
}

func TestClock(t *testing.T) {
	m := initMachine(t)
	now := time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC)
	m.Baked.BuildTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m.Host.Now = func() time.Time { return now }
	sets := 0
	m.Host.SetClock = func(to time.Time) error { sets++; now = to; return nil }
	for range 2 {
		if err := runSteps(t.Context(), m, stepClock()); err != nil {
			t.Fatal(err)
		}
	}
	if sets != 1 || !now.After(m.Baked.BuildTime) {
		t.Errorf("set %d times, to %s; want once, after the build", sets, now)
	}
}
