package firstboot

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/upgrade"
	"github.com/kbuild/kbuild/images"
)

// nodeOf119 makes machines that are control planes of v1.19.12, with an etcd
// that has data, and that boot an image of another version.
func nodeOf119(t *testing.T, boots string) func(t *testing.T) *node.Machine {
	t.Helper()
	machine := after(t, stepCerts(), stepKubeconfig(), stepEtcd(), stepControlPlane())
	release, err := images.Lookup(boots)
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) *node.Machine {
		t.Helper()
		m := machine(t)
		// The copy has other modes than the steps gave.
		err := errors.Join(m.Freeze(m.Node), os.Chmod(m.Host.Path(node.ManifestDir), 0o700), os.Chmod(m.Host.Path("/var/lib/etcd"), 0o700))
		if err != nil {
			t.Fatal(err)
		}
		// A log of etcd is mostly a hole.
		wal := filepath.Join(m.Host.Path("/var/lib/etcd"), "member/wal/0.wal")
		err = errors.Join(os.MkdirAll(filepath.Dir(wal), 0o700), os.WriteFile(wal, []byte("entries"), 0o600), os.Truncate(wal, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		m.Host.Probe.Space = func(string) (uint64, error) { return 1 << 30, nil }
		m.Baked.Release = release
		return m
	}
}

// stepLoad stands for the metadata step: it loads what is frozen.
func stepLoad() converge.Step {
	return converge.Step{Name: "load", Done: func(_ context.Context, m *node.Machine) (done bool, err error) {
		m.Node, err = node.Frozen(m.Host)
		return err == nil, err
	}}
}

// TestMoveCrash cuts the power at each change of a move to the next minor
// version, and at each change of the way back.
func TestMoveCrash(t *testing.T) {
	machine := nodeOf119(t, "v1.20.15")
	t.Run("forward", func(t *testing.T) {
		cutPower(t, machine, upgrade.VersionPolicyStep(), stepLoad(), stepEtcd(), stepControlPlane())
	})
	t.Run("back", func(t *testing.T) {
		cutPower(t, func(t *testing.T) *node.Machine { return back(t, machine(t), -1) }, upgrade.VersionPolicyStep(), stepLoad(), stepEtcd(), stepControlPlane())
	})
}

// back takes a machine forward, whole (changes is -1) or until the power is cut
// before a change, and gives it the image of v1.19.12 again.
func back(t *testing.T, m *node.Machine, changes int) *node.Machine {
	t.Helper()
	count := 0
	m.Host.Effect = func(string) error {
		if count++; changes >= 0 && count > changes {
			return errPowerCut
		}
		return nil
	}
	err := runSteps(t.Context(), m, upgrade.VersionPolicyStep(), stepLoad(), stepCerts(), stepKubeconfig(), stepEtcd(), stepControlPlane())
	if err != nil && !errors.Is(err, errPowerCut) {
		t.Fatal(err)
	}
	m.Host.Effect = nil
	if m.Baked.Release, err = images.Lookup("v1.19.12"); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFallback goes back from every instant of a move: the disk is the one from
// before it, but for the data of etcd, which goes on.
func TestFallback(t *testing.T) {
	machine := nodeOf119(t, "v1.20.15")
	whole, n := machine(t), 0
	before := diskView(t, whole.Host.Path("/"))
	whole.Host.Effect = func(string) error { n++; return nil }
	steps := []converge.Step{upgrade.VersionPolicyStep(), stepLoad(), stepCerts(), stepKubeconfig(), stepEtcd(), stepControlPlane()}
	if err := runSteps(t.Context(), whole, steps...); err != nil {
		t.Fatal(err)
	}
	for k := range n + 1 {
		m := back(t, machine(t), k)
		if err := runSteps(t.Context(), m, steps...); err != nil {
			t.Fatalf("the old image after %d changes of the new one: %v", k, err)
		}
		after := diskView(t, m.Host.Path("/"))
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("the old image after %d changes of the new one (-before +after):\n%s", k, d)
		}
	}
}

func TestVersionPolicyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		boots string
		spoil func(m *node.Machine)
		want  string
	}{
		"a minor is skipped": {"v1.37.2", func(*node.Machine) {}, "one after another"},
		"older":              {"v1.19.11", func(*node.Machine) {}, "it is older"},
		"no room":            {"v1.20.15", func(m *node.Machine) { m.Host.Probe.Space = func(string) (uint64, error) { return 1 << 20, nil } }, "make room"},
	} {
		t.Run(name, func(t *testing.T) {
			m := nodeOf119(t, c.boots)(t)
			c.spoil(m)
			before := diskView(t, m.Host.Path("/"))
			err := runSteps(t.Context(), m, upgrade.VersionPolicyStep())
			if _, final := errors.AsType[outcome.Refused](err); !final || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (final %t), want one with %q", err, final, c.want)
			}
			if d := cmp.Diff(before, diskView(t, m.Host.Path("/"))); d != "" {
				t.Errorf("a refused image changed the disk:\n%s", d)
			}
		})
	}
}

// TestKeptHole: a copy of etcd's preallocated log takes no more room than what
// is in it.
func TestKeptHole(t *testing.T) {
	m := nodeOf119(t, "v1.20.15")(t)
	if err := runSteps(t.Context(), m, upgrade.VersionPolicyStep()); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(m.Host.Path(upgrade.BackupDir + "/var/lib/etcd/member/wal/0.wal"))
	if err != nil || st.Size() != 1<<20 {
		t.Fatalf("%v %v", st, err)
	}
	if blocks := blocksOf(st); blocks*512 > 128<<10 {
		t.Errorf("the copy takes %d bytes of the disk for 7 bytes and a hole", blocks*512)
	}
	kept := slices.Sorted(maps.Keys(diskView(t, m.Host.Path("/"))))
	if !slices.ContainsFunc(kept, func(s string) bool {
		return strings.HasPrefix(s, upgrade.BackupDir+node.ManifestPath("kube-apiserver"))
	}) {
		t.Errorf("the static pods are not kept: %q", kept)
	}
}

func blocksOf(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks }

// TestUndoneCopy: a copy that is being removed is none. A cut leaves part of it,
// and the next move must not take that for the whole.
func TestUndoneCopy(t *testing.T) {
	m := back(t, nodeOf119(t, "v1.20.15")(t), -1)
	m.Host.Effect = func(what string) error {
		if strings.HasPrefix(what, "remove ") && m.Host.Exists(upgrade.BackupDir+"/kept.json") {
			t.Errorf("%s, and the record is still in place", what)
		}
		return nil
	}
	if err := runSteps(t.Context(), m, upgrade.VersionPolicyStep()); err != nil {
		t.Fatal(err)
	}
	if m.Host.Exists(upgrade.BackupDir) || m.Host.Exists("/var/lib/kbuild/.keeping") {
		t.Error("the copy is still there")
	}
}

// TestUndoWithoutEtcd: whether etcd can go back is no matter of a node that has
// no member of it.
func TestUndoWithoutEtcd(t *testing.T) {
	for name, c := range map[string]struct {
		member bool
		want   string
	}{"a member": {true, "the data from before is in /var/lib/kbuild/kept/var/lib/etcd"}, "none": {false, ""}} {
		t.Run(name, func(t *testing.T) {
			m := nodeOf119(t, "v1.20.15")(t)
			if !c.member {
				if err := os.RemoveAll(m.Host.Path("/var/lib/etcd")); err != nil {
					t.Fatal(err)
				}
			}
			m.Baked.Release.Etcd.Tag = "3.5.0-0"
			m = back(t, m, -1)
			err := runSteps(t.Context(), m, upgrade.VersionPolicyStep())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestKeptEtcdOfCluster: a control plane that joined has its etcd where its
// cluster says, and so has the copy. It is kept of the version that the node
// was of, whatever the cluster is of by then.
func TestKeptEtcdOfCluster(t *testing.T) {
	m := nodeOf119(t, "v1.20.15")(t)
	root := m.Host.Path("/")
	if err := os.Rename(filepath.Join(root, "var/lib/etcd"), filepath.Join(root, "var/lib/other")); err != nil {
		t.Fatal(err)
	}
	n := *m.Node
	n.Role = config.RoleControlPlane
	of := n.Cluster
	of.Etcd.Local = &config.LocalEtcd{DataDir: "/var/lib/other"}
	of.KubernetesVersion = "v1.20.15"
	if err := errors.Join(m.FreezeCluster(&n, config.Cluster{Cluster: of, Kubelet: n.Kubelet}), m.Freeze(&n)); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(t.Context(), m, upgrade.VersionPolicyStep()); err != nil {
		t.Fatal(err)
	}
	k, err := upgrade.ReadBackup(m)
	if err != nil || k.Data != "/var/lib/other" || k.Version != "v1.19.12" || !m.Host.Exists(upgrade.BackupDir+"/var/lib/other/member/wal/0.wal") {
		t.Errorf("%+v, %v: the data of etcd is not kept", k, err)
	}
}
