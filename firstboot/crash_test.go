package firstboot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

var errPowerCut = errors.New("power cut")

// cutPower is the crash matrix of steps that work on the disk. machine makes a
// new machine, the same each time. It is taken through steps undisturbed, and
// once for each change that they made, with the power cut just before that
// change; then it boots again. Each time the disk must end as if nothing had
// happened. A further boot must change nothing.
func cutPower(t *testing.T, machine func(t *testing.T) *node.Machine, steps ...converge.Step) {
	t.Helper()
	ctx := context.Background()
	m := machine(t)
	var changes []string
	m.Host.Effect = func(what string) error { changes = append(changes, what); return nil }
	if err := runSteps(ctx, m, steps...); err != nil {
		t.Fatal(err)
	}
	want, n := diskView(t, m.Host.Path("/")), len(changes)
	if n == 0 {
		t.Fatal("the steps changed nothing")
	}
	if err := runSteps(ctx, m, steps...); err != nil || len(changes) != n {
		t.Errorf("a further boot changed %q (%v)", changes[n:], err)
	}
	for k := range n {
		t.Run(fmt.Sprintf("before change %d, %s", k+1, strings.ReplaceAll(changes[k], "/", "_")), func(t *testing.T) {
			t.Parallel()
			m := machine(t)
			count := 0
			m.Host.Effect = func(what string) error {
				if count++; count <= k {
					return nil
				}
				litter(t, m, what)
				return errPowerCut
			}
			if err := runSteps(ctx, m, steps...); !errors.Is(err, errPowerCut) {
				t.Fatalf("the power is cut, and the steps say %v", err)
			}
			m.Host.Effect = nil
			if err := runSteps(ctx, m, steps...); err != nil {
				t.Fatalf("the boot afterwards: %v", err)
			}
			if d := cmp.Diff(want, diskView(t, m.Host.Path("/"))); d != "" {
				t.Errorf("another disk (-undisturbed +cut):\n%s", d)
			}
		})
	}
}

// litter leaves what a write may leave behind that is cut half-way: part of a
// temporary file.
func litter(t *testing.T, m *node.Machine, what string) {
	file, ok := strings.CutPrefix(what, "write ")
	if !ok {
		return
	}
	dir := filepath.Join(m.Host.Path("/"), filepath.Dir(file))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".kbuild-HALF"), []byte("-----BEGIN "), 0o600); err != nil {
		t.Fatal(err)
	}
}

// initMachine is a machine that is to become a first control plane, with an
// empty disk. Elliptic keys are made in no time.
func initMachine(t *testing.T) *node.Machine {
	t.Helper()
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	m := &node.Machine{Host: testHost(t), Baked: images.Baked{Arch: "amd64", CNI: "none", Release: release}}
	machine := config.Machine{Hostname: "node-1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
	m.Node, _, err = config.Load(m.Baked, machine, config.Document{Source: "test", Data: []byte(testUserdata + "featureGates: {PublicKeysECDSA: true}\n")})
	if err != nil {
		t.Fatal(err)
	}
	// /etc is part of the read-only root; this is how it leads to the disk.
	root := m.Host.Path("/")
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.MkdirAll(filepath.Join(root, "var/lib/kbuild/kubernetes"), 0o755),
		os.Symlink("../var/lib/kbuild/kubernetes", filepath.Join(root, "etc/kubernetes"))); err != nil {
		t.Fatal(err)
	}
	m.Host.Systemd.Restart = func(context.Context, string) error { return nil }
	m.Host.Systemd.Active = func(context.Context, string) (string, error) { return "active", nil }
	return m
}

// after makes machines on which steps ran already, once.
func after(t *testing.T, steps ...converge.Step) func(t *testing.T) *node.Machine {
	t.Helper()
	first := initMachine(t)
	if err := runSteps(context.Background(), first, steps...); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) *node.Machine {
		t.Helper()
		m := initMachine(t)
		if err := m.Host.Root.Remove("etc/kubernetes"); err != nil { // CopyFS will not replace it
			t.Fatal(err)
		}
		if err := os.CopyFS(m.Host.Path("/"), os.DirFS(first.Host.Path("/"))); err != nil {
			t.Fatal(err)
		}
		m.Host.Now = first.Host.Now // its certificates began by this clock
		return m
	}
}

func TestCertsCrash(t *testing.T) { cutPower(t, initMachine, stepCerts()) }

func TestKubeconfigCrash(t *testing.T) { cutPower(t, after(t, stepCerts()), stepKubeconfig()) }

func TestEtcdCrash(t *testing.T) { cutPower(t, initMachine, stepEtcd()) }

func TestControlPlaneCrash(t *testing.T) { cutPower(t, initMachine, stepControlPlane()) }

// The kubelet's step comes after the kubeconfigs, and waits for an answer that
// this machine's kubelet does not give: so none is asked for.
func TestKubeletStartCrash(t *testing.T) {
	machine := after(t, stepCerts(), stepKubeconfig())
	cutPower(t, func(t *testing.T) *node.Machine {
		m := machine(t)
		m.Node.Kubelet["healthzPort"] = int64(0)
		m.Baked.CNI = "flannel"
		return m
	}, stepKubeletStart())
}

// TestNewImage boots a machine with an image whose templates differ: its
// manifests are written anew, its keys stay.
func TestNewImage(t *testing.T) {
	ctx := context.Background()
	m := after(t, stepCerts(), stepEtcd(), stepControlPlane())(t)
	before := oracleContents(t, m.Host.Path("/"))
	var err error
	if m.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
		t.Fatal(err)
	}
	m.Node.Cluster.KubernetesVersion = "v1.20.15"
	if err := runSteps(ctx, m, stepCerts(), stepEtcd(), stepControlPlane()); err != nil {
		t.Fatal(err)
	}
	now := oracleContents(t, m.Host.Path("/"))
	for file := range maps.Keys(before) {
		if manifest := filepath.Dir(file) == node.ManifestDir; manifest == (before[file] == now[file]) {
			t.Errorf("%s: changed %t", file, before[file] != now[file])
		}
	}
	if len(now) != len(before) || !strings.Contains(now[node.ManifestPath("kube-apiserver")], "kube-apiserver:v1.20.15") {
		t.Error("the manifests are not those of the new image")
	}
}
