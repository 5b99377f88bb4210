package firstboot

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// oracleVersions are the versions whose real kubeadm judges ours, and the tree in
// which all that it leaves is compared, with the ConfigMaps where it is empty.
func oracleVersions() []oracleVersion {
	return []oracleVersion{{"v1.19.12", ""}, {"v1.20.15", ""}, {"v1.37.2", node.ManifestDir}}
}

type oracleVersion struct{ version, tree string }

// oracleCase is a configuration, testdata/oracle/NAME.yaml, and what there is
// on both machines before; all of it may be nil.
type oracleCase struct {
	// prepare changes the root directory of a machine. made is one on which
	// kubeadm ran already, with the same configuration.
	prepare func(t *testing.T, root, made string)
	env     []string // of kubeadm and of kbuild-firstboot
	patches string   // kubeadm's --experimental-patches
}

// TestOracle gives each configuration to real kubeadm and to the steps, each
// on an empty machine of its own, and compares what they leave on the disk:
// certificates field by field, manifests, kubeconfigs and configuration as
// objects, modes. What differs must be listed in testdata/oracle-differences.txt,
// and what is listed must differ.
func TestOracle(t *testing.T) {
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
		}
		t.Skip("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries: run `make oracle`")
	}
	if os.Getuid() != 0 {
		t.Fatal("kubeadm --rootfs needs root")
	}
	for _, v := range oracleVersions() {
		if _, err := os.Stat(filepath.Join(dir, "kubeadm-"+v.version)); err != nil {
			t.Fatalf("cannot ask real kubeadm: %v; `make oracle` compiles it", err)
		}
	}
	files, err := filepath.Glob("testdata/oracle/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("want at least 12 configurations, have %d (%v)", len(files), err)
	}
	names := map[string]bool{}
	var ran atomic.Int32
	list := readOracleList(t)
	t.Run("compare", func(t *testing.T) {
		for _, v := range oracleVersions() {
			for _, file := range files {
				name := strings.TrimSuffix(filepath.Base(file), ".yaml")
				names[name] = true
				t.Run(v.version+"/"+name, func(t *testing.T) {
					t.Parallel()
					ran.Add(1)
					rel, err := images.Lookup(v.version)
					if err != nil {
						t.Fatal(err)
					}
					oracleCompare(t, list, oracleKubeadm{filepath.Join(dir, "kubeadm-"+v.version), rel}, name, file, v.tree)
				})
			}
		}
	})
	for name := range oracleCases() {
		if !names[name] {
			t.Errorf("testdata/oracle/%s.yaml is missing", name)
		}
	}
	if !t.Failed() && int(ran.Load()) == len(files)*len(oracleVersions()) { // not with a -run that picks
		list.checkUsed(t)
	}
}

func oracleCompare(t *testing.T, list *oracleList, k oracleKubeadm, name, file, tree string) {
	c := oracleCases()[name]
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc = oracleDoc(t, k.rel, string(doc), c.patches)
	theirs, ours, made := oracleRoot(t), testHost(t), ""
	oracleDirs(t, ours.Path("/"))
	if c.prepare != nil {
		made = oracleRoot(t)
		k.phases(t, made, doc, c)
		c.prepare(t, theirs, made)
		c.prepare(t, ours.Path("/"), made)
	}
	k.phases(t, theirs, doc, c)
	want := diskView(t, theirs)
	if tree == "" {
		maps.Copy(want, k.configMaps(t, doc))
	}

	before := oracleContents(t, ours.Path("/"))
	delete(before, node.KubeletKubeconfig) // see oracleSteps
	ours.Env, ours.Now = c.env, time.Now   // kubeadm made some of what is there just now
	ours.Systemd.Restart = func(context.Context, string) error { return nil }
	ours.Systemd.Active = func(context.Context, string) (string, error) { return "active", nil }
	m := &node.Machine{Host: ours, Baked: oracleBaked(t, k.rel.Version)}
	m.Node = oracleNode(t, m.Baked, doc, c)
	got := oracleSteps(t, m)
	if tree == "" {
		maps.Copy(got, oracleOurConfigMaps(t, m.Node, m.Baked.Release))
	}
	for f, b := range before {
		if after, err := os.ReadFile(filepath.Join(ours.Path("/"), f)); err != nil || string(after) != b {
			t.Errorf("%s was there before and is not the same any more (%v)", f, err)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(union(anyOf(want), anyOf(got)))) {
		if want[at] != got[at] && strings.HasPrefix(at, tree) && !list.has(k.rel.Version, name, at) {
			t.Errorf("%s:\n\tkubeadm %q\n\tkbuild  %q", at, want[at], got[at])
		}
	}
}

func anyOf(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// oracleBaked is an image without a pod network, since kubeadm brings none.
func oracleBaked(t *testing.T, version string) images.Baked {
	rel, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	return images.Baked{Arch: "amd64", CNI: "none", Release: rel}
}

// oracleSteps runs our steps on r and returns what they left. The kubelet's
// step also does part of what kubeadm's kubelet-finalize does, so the
// kubeconfigs are looked at before it, and of what it leaves only the kubelet's
// configuration.
func oracleSteps(t *testing.T, m *node.Machine) map[string]string {
	t.Helper()
	ctx := context.Background()
	if err := runSteps(ctx, m, stepCerts(), stepKubeconfig(), stepEtcd(), stepControlPlane()); err != nil {
		t.Fatal(err)
	}
	view := diskView(t, m.Host.Path("/"))
	if err := stepKubeletStart().Do(ctx, m); err != nil {
		t.Fatal(err)
	}
	for at, v := range diskView(t, m.Host.Path("/")) {
		if strings.HasPrefix(at, kubelet.Dir) && !strings.HasPrefix(at, kubelet.Dir+"/pki") {
			view[at] = v
		}
	}
	return view
}

// oracleNode is what a machine makes of a configuration.
func oracleNode(t *testing.T, baked images.Baked, doc []byte, c oracleCase) *config.Node {
	t.Helper()
	machine := config.Machine{Hostname: "node-1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
	n, _, err := config.Load(baked, machine, config.Document{Source: "test", Data: doc})
	if err != nil {
		t.Fatal(err)
	}
	n.Init.Patches = c.patches
	return n
}

// oracleRoot is the empty disk of a machine.
func oracleRoot(t *testing.T) string {
	dir := t.TempDir()
	oracleDirs(t, dir)
	return dir
}

// oracleDirs makes what the base system has.
func oracleDirs(t *testing.T, root string) {
	for _, d := range []string{"tmp", "var/lib", "etc/ssl/certs", "usr/share/ca-certificates", "usr/libexec/kubernetes/kubelet-plugins/volume/exec"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// oracleKubeadm is a real kubeadm.
type oracleKubeadm struct {
	bin string
	rel images.Release
}

// command is kubeadm in root, with the name of the machine and no other
// environment than the case's.
func (k oracleKubeadm) command(root string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append([]string{"--uts", "sh", "-c", `hostname node-1 && exec "$0" "$@"`, k.bin, "--rootfs=" + root}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	return cmd
}

func (k oracleKubeadm) run(t *testing.T, root string, env []string, args ...string) {
	t.Helper()
	if out, err := k.command(root, env, args...).CombinedOutput(); err != nil {
		t.Fatalf("kubeadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// phases runs the phases that write files.
func (k oracleKubeadm) phases(t *testing.T, root string, doc []byte, c oracleCase) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "kubeadm.yaml"), doc, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := "--config=/kubeadm.yaml"
	k.run(t, root, c.env, "init", "phase", "certs", "all", conf)
	k.run(t, root, c.env, "init", "phase", "kubeconfig", "all", conf)
	args := []string{conf}
	if c.patches != "" {
		oraclePatches(t, root, c.patches)
		if k.rel.ConfigAPI == "v1beta2" { // later it stands in the configuration
			args = append(args, "--experimental-patches="+c.patches)
		}
	}
	k.run(t, root, c.env, append([]string{"init", "phase", "control-plane", "all"}, args...)...)
	k.run(t, root, c.env, append([]string{"init", "phase", "etcd", "local"}, args...)...)
	k.run(t, root, c.env, "init", "phase", "kubelet-start", conf)
}
