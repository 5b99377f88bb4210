package firstboot

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// TestKubeletStart starts the kubelet when what it runs with changed, when it
// does not run, and after a reboot; and never else.
func TestKubeletStart(t *testing.T) {
	r := after(t, stepCertsCA(), stepKubeconfigKubelet())(t)
	restarts, state := 0, "inactive"
	r.Host.Systemd.Restart = func(context.Context, string) error { restarts++; state = "active"; return nil }
	r.Host.Systemd.Active = func(context.Context, string) (string, error) { return state, nil }
	r.Node.Kubelet["healthzPort"] = float64(0) // no kubelet answers in a test
	expect := func(what string, want int) {
		t.Helper()
		if err := converge(t.Context(), r, stepKubeletStart()); err != nil || restarts != want {
			t.Fatalf("%s: %v, %d starts, want %d", what, err, restarts, want)
		}
	}
	expect("first boot", 1)
	env, err := r.Host.ReadFile(kubeletFlags)
	if want := "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote --container-runtime-endpoint=/run/containerd/containerd.sock\"\n"; err != nil || string(env) != want {
		t.Errorf("%s is %q (%v), want %q", kubeletFlags, env, err, want)
	}
	for name, mode := range map[string]os.FileMode{kubeletConfig: 0o644, kubeletFlags: 0o644, kubeletDir: 0o700, kubeletKubeconfig: 0o600} {
		if st, err := os.Stat(r.Host.Path(name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, want mode %o", name, err, mode)
		}
	}
	expect("all is so", 1)
	state = "failed"
	expect("the kubelet failed", 2)
	r.Node.Init.NodeRegistration.KubeletExtraArgs = map[string]string{"v": "4"}
	expect("another flag", 3)
	if err := os.WriteFile(r.Host.Path(kubeletConfig), []byte("kind: KubeletConfiguration\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect("somebody's configuration", 4)
	if err := os.RemoveAll(r.Host.Path("/run/kbuild")); err != nil {
		t.Fatal(err)
	}
	state = "inactive"
	expect("reboot", 5)
}

// A worker registers with its taints; a control plane is tainted later.
func TestKubeletTaints(t *testing.T) {
	r := initMachine(t)
	r.Node.Init.NodeRegistration.Taints = controlPlaneTaints(r)
	const flag = "--register-with-taints=node-role.kubernetes.io/master:NoSchedule"
	if args := kubeletArguments(r.Node, r.Baked.Release); slices.Contains(args, flag) {
		t.Errorf("a control plane's flags are %q", args)
	}
	n := *r.Node
	n.Role = config.RoleWorker
	if args := kubeletArguments(&n, r.Baked.Release); !slices.Contains(args, flag) {
		t.Errorf("a worker's flags are %q, want %s", args, flag)
	}
	release, err := images.Lookup("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	if args := kubeletArguments(r.Node, release); strings.Contains(strings.Join(args, " "), "container-runtime") {
		t.Errorf("v1.37 is told of its runtime in a file, not by %q", args)
	}
}

// The kubelet waits for the images only where it would find static pods.
func TestStaticPodsNeed(t *testing.T) {
	r := initMachine(t)
	if needs := staticPodsNeed(r); needs != nil {
		t.Errorf("an empty disk needs %q", needs)
	}
	if err := converge(t.Context(), r, stepControlPlane()); err != nil {
		t.Fatal(err)
	}
	if needs := staticPodsNeed(r); !slices.Equal(needs, []string{"images"}) {
		t.Errorf("with static pods it needs %q, want the images", needs)
	}
}

func TestClock(t *testing.T) {
	r := initMachine(t)
	now := time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC)
	r.Baked.BuildTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Host.Now = func() time.Time { return now }
	sets := 0
	r.Host.SetClock = func(to time.Time) error { sets++; now = to; return nil }
	for range 2 {
		if err := converge(t.Context(), r, stepClock()); err != nil {
			t.Fatal(err)
		}
	}
	if sets != 1 || !now.After(r.Baked.BuildTime) {
		t.Errorf("set %d times, to %s; want once, after the build", sets, now)
	}
}

// A phase that is left out takes its parts with it, and a part leaves the rest.
func TestSkipsParts(t *testing.T) {
	for _, c := range []struct {
		skip, step string
		want       bool
	}{{"certs", "certs/ca", true}, {"certs", "certs", true}, {"certs/ca", "certs", false}, {"cert", "certs/ca", false}} {
		if got := (Options{Skip: []string{c.skip}}).skips(c.step); got != c.want {
			t.Errorf("with %s left out, %s is: %v", c.skip, c.step, got)
		}
	}
}
