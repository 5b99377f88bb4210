package firstboot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/reset"
)

// resettable is a control plane whose cluster has another one, with an external
// etcd, so that no etcd has to answer.
func resettable(t *testing.T) (*joinable, *node.Machine) {
	t.Helper()
	j := newJoinable(t)
	m := j.first
	m.Node.Cluster.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://192.0.2.9:2379"}}}
	if err := m.Freeze(m.Node); err != nil {
		t.Fatal(err)
	}
	m.Host.Systemd.Active = func(context.Context, string) (string, error) { return "inactive", nil }
	m.Host.Systemd.Stop = func(context.Context, string) error { return nil }
	m.Host.Hostname = func() (string, error) { return "node-1", nil }
	m.Host.Probe.Links = func() ([]host.Link, error) { return nil, nil }
	if err := m.Host.WriteFile("/proc/self/mountinfo", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Host.WriteFile("/var/lib/kubelet/device-plugins/x", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-1", "other"} {
		c := j.admin.CoreV1().Nodes()
		n, err := c.Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			n, err = c.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		metav1.SetMetaDataLabel(&n.ObjectMeta, "node-role.kubernetes.io/master", "")
		if _, err := c.Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return j, m
}

// resetAndBoot resets the machine until it asks for its reboot.
func resetAndBoot(t *testing.T, m *node.Machine, o reset.Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	booted := errors.New("reboot")
	m.Host.Systemd.Start = func(_ context.Context, unit string) error {
		if unit != "reboot.target" {
			return errors.New("started " + unit)
		}
		return booted
	}
	err := reset.Run(ctx, m, o, &converge.Report{Host: m.Host})
	if errors.Is(err, booted) {
		return nil
	}
	if err == nil {
		err = errors.New("it ended without a reboot")
	}
	return err
}

func TestResetControlPlane(t *testing.T) {
	j, r := resettable(t)
	asked := 0
	r.Host.FactoryReset = func() error { asked++; return nil }
	if err := resetAndBoot(t, r, reset.Options{}); err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Errorf("the firmware was asked %d times", asked)
	}
	left(t, j, r)
	if !node.Resetting(r.Host) {
		t.Error("the reset is over before var is wiped")
	}
	// The firmware does not heed it: the next boot removes the files itself.
	if err := resetAndBoot(t, r, reset.Options{}); err != nil {
		t.Fatal(err)
	}
	if asked != 1 || node.Resetting(r.Host) {
		t.Errorf("after a boot with var as it was: asked %d times, still resetting %t", asked, node.Resetting(r.Host))
	}
}

func TestResetWithoutVariables(t *testing.T) {
	j, r := resettable(t)
	r.Host.FactoryReset = func() error { return host.ErrNoVariables }
	if err := resetAndBoot(t, r, reset.Options{}); err != nil {
		t.Fatal(err)
	}
	left(t, j, r)
	if node.Resetting(r.Host) {
		t.Error("still resetting")
	}
}

// left holds that the cluster knows the machine no more, and the machine none
// of its secrets.
func left(t *testing.T, j *joinable, m *node.Machine) {
	t.Helper()
	if _, err := j.admin.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Node: %v", err)
	}
	if e, err := node.APIEndpoints(t.Context(), j.admin); err != nil || len(e) != 0 {
		t.Errorf("ClusterStatus lists %v, %v", e, err)
	}
	filepath.WalkDir(m.Host.Path("/"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(p, "reset.json") && !strings.Contains(p, "/proc/") && !strings.Contains(p, "/run/") && d.Type().IsRegular() {
			t.Errorf("%s is still there", p)
		}
		return nil
	})
}

func TestResetRefused(t *testing.T) {
	j, r := resettable(t)
	if err := j.admin.CoreV1().Nodes().Delete(t.Context(), "other", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	before := diskView(t, r.Host.Path("/"))
	err := resetAndBoot(t, r, reset.Options{})
	if err == nil || !strings.Contains(err.Error(), "last control plane") || !strings.Contains(err.Error(), "--force") || node.Resetting(r.Host) {
		t.Errorf("the last control plane: %v", err)
	}
	for file, was := range before {
		if now := diskView(t, r.Host.Path("/"))[file]; now != was && !strings.Contains(file, "status.json") {
			t.Errorf("a refused reset changed %s", file)
		}
	}
	r.Host.FactoryReset = func() error { return nil }
	if err := resetAndBoot(t, r, reset.Options{Force: true}); err != nil {
		t.Errorf("forced: %v", err)
	}
	if r.Host.Exists(node.ConfigFile) {
		t.Error("forced, and still configured")
	}
}

// TestResetUnreachable resets a machine whose cluster does not answer.
func TestResetUnreachable(t *testing.T) {
	_, r := resettable(t)
	b, err := r.Host.ReadFile(node.AdminKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	dead := strings.Replace(string(b), "server: ", "server: https://127.0.0.1:1 # ", 1)
	if err := r.Host.WriteFile(node.AdminKubeconfig, []byte(dead), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := resetAndBoot(t, r, reset.Options{}); err == nil || !strings.Contains(err.Error(), "--force") || node.Resetting(r.Host) {
		t.Errorf("not forced: %v", err)
	}
	r.Host.FactoryReset = func() error { return nil }
	now := time.Now()
	r.Host.Now = func() time.Time { now = now.Add(15 * time.Second); return now }
	if err := resetAndBoot(t, r, reset.Options{Force: true}); err != nil {
		t.Errorf("forced: %v", err)
	}
}

// TestResetCut cuts the power before each change that a reset makes: the next
// boot goes on, and ends as if nothing had happened.
func TestResetCut(t *testing.T) {
	var changes []string
	count := func(m *node.Machine, cut int) {
		n := 0
		m.Host.Effect = func(what string) error {
			if strings.Contains(what, "status.json") {
				return nil
			}
			if n++; n == cut {
				return errPowerCut
			}
			if cut < 0 {
				changes = append(changes, what)
			}
			return nil
		}
	}
	_, r := resettable(t)
	r.Host.FactoryReset = func() error { return nil }
	count(r, -1)
	if err := resetAndBoot(t, r, reset.Options{}); err != nil {
		t.Fatal(err)
	}
	if len(changes) < 8 {
		t.Fatalf("only %d changes: %q", len(changes), changes)
	}
	for k := range len(changes) {
		j, r := resettable(t)
		asked := 0
		r.Host.FactoryReset = func() error { asked++; return nil }
		count(r, k+1)
		if err := resetAndBoot(t, r, reset.Options{}); !errors.Is(err, errPowerCut) {
			t.Fatalf("cut before %s: %v", changes[k], err)
		}
		r.Host.Effect = nil
		if !node.Resetting(r.Host) {
			if k != 0 {
				t.Errorf("cut before %s: the boot does not know of the reset", changes[k])
			}
			continue
		}
		if err := resetAndBoot(t, r, reset.Options{}); err != nil {
			t.Errorf("the boot after a cut before %s: %v", changes[k], err)
		}
		left(t, j, r)
	}
}
