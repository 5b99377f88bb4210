package firstboot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

const (
	shortUserData = "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\nname: cp-1.example.org\n"
	userDataFile  = "run/credentials/@system/kbuild.userdata"
)

// machine is a made-up machine for the first steps.
type testMachine struct {
	*node.Machine
	dir      string
	hostname string
	log      bytes.Buffer
}

func newTestMachine(t testing.TB, files map[string]string) *testMachine {
	t.Helper()
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	m := &testMachine{dir: t.TempDir(), hostname: "localhost"}
	for name, text := range files {
		m.write(t, name, text)
	}
	root, err := os.OpenRoot(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	m.Machine = &node.Machine{Baked: images.Baked{Release: release, CNI: "flannel", PodCIDR: "10.244.0.0/16", BuildTime: now.Add(-time.Hour)}, Host: &host.Host{
		Root: root,
		Run: func(_ context.Context, name string, args ...string) ([]byte, error) {
			return []byte("Kubernetes v1.19.12\n"), nil
		},
		Systemd:     host.Systemd{Active: func(context.Context, string) (string, error) { return "inactive", nil }},
		Now:         func() time.Time { return now },
		Hostname:    func() (string, error) { return m.hostname, nil },
		SetHostname: func(s string) error { m.hostname = s; return nil },
		Log:         slog.New(slog.NewTextHandler(&m.log, nil)),
		Probe: host.Probe{
			CPUs: func() int { return 2 }, UID: func() int { return 0 },
			Kernel: func() (string, error) { return "6.12.48-cloud-amd64", nil },
			Links: func() ([]host.Link, error) {
				return []host.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}}}, nil
			},
			Free:       func(int) error { return nil },
			Space:      func(string) (uint64, error) { return 10 << 30, nil },
			LookupHost: func(context.Context, string) ([]string, error) { return []string{"192.0.2.5"}, nil },
		},
	}}
	return m
}

func (m *testMachine) write(t testing.TB, name, text string) {
	t.Helper()
	file := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reboot is the next boot: what is in memory is gone.
func (m *testMachine) reboot(t testing.TB) {
	t.Helper()
	m.Node, m.hostname, m.Host.Effect = nil, "localhost", nil
	m.log.Reset()
	if err := os.RemoveAll(filepath.Join(m.dir, "run/kbuild")); err != nil {
		t.Fatal(err)
	}
}

// tree is every file with its mode and content.
func (m *testMachine) tree(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(m.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		out[strings.TrimPrefix(p, m.dir)] = st.Mode().String() + " " + string(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func firstSteps() []converge.Step { return []converge.Step{stepMetadata(), stepHostname()} }

// why is what a step waits for.
func why(t testing.TB, err error) string {
	t.Helper()
	var r outcome.Retry
	if !errors.As(err, &r) || r.After <= 0 {
		t.Fatalf("it does not wait: %v", err)
	}
	return r.Why
}

func TestMetadataStep(t *testing.T) {
	m := newTestMachine(t, map[string]string{userDataFile: shortUserData})
	ctx := context.Background()
	if done, err := stepMetadata().Done(ctx, m.Machine); done || err != nil {
		t.Fatalf("done at once: %v %v", done, err)
	}
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	if m.Node == nil || m.Node.Init.NodeRegistration.Name != "cp-1.example.org" || m.hostname != "cp-1.example.org" {
		t.Errorf("%+v %q", m.Node, m.hostname)
	}
	st, err := os.Stat(filepath.Join(m.dir, node.ConfigFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the frozen configuration: %v %v", st, err)
	}
	token := m.Node.Init.BootstrapTokens[0].Token.Reveal()
	if strings.Contains(m.log.String(), token) {
		t.Error("the log shows the token")
	}
	hosts, err := os.ReadFile(filepath.Join(m.dir, node.HostsFile))
	if err != nil || !strings.Contains(string(hosts), "192.0.2.5 cp-1.example.org cp-1\n") {
		t.Errorf("%s: %q %v", node.HostsFile, hosts, err)
	}

	// The next boot: the frozen node is taken, with its random token; memory
	// is set up again.
	before := m.tree(t)
	m.reboot(t)
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, m.tree(t)); d != "" {
		t.Errorf("a second boot changes\n%s", d)
	}
	if m.Node.Init.BootstrapTokens[0].Token.Reveal() != token || m.hostname != "cp-1.example.org" {
		t.Error("the node is another one")
	}
	if strings.Contains(m.log.String(), "has changed") {
		t.Errorf("nothing changed, but: %s", m.log.String())
	}

	// Other user-data is noted, once, and not applied.
	m.reboot(t)
	m.write(t, userDataFile, shortUserData+"clusterName: other\n")
	if err := runSteps(ctx, m.Machine, append(firstSteps(), firstSteps()...)...); err != nil {
		t.Fatal(err)
	}
	if m.Node.Cluster.ClusterName != "kubernetes" || strings.Count(m.log.String(), "has changed") != 1 {
		t.Errorf("%s, log: %s", m.Node.Cluster.ClusterName, m.log.String())
	}
	// None at all any more is fine.
	m.reboot(t)
	if err := os.Remove(filepath.Join(m.dir, userDataFile)); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil || strings.Contains(m.log.String(), "has changed") {
		t.Errorf("%v, log: %s", err, m.log.String())
	}
}

// TestMetadataTaken: a machine that has not joined yet takes better user-data
// at its next boot, and forgets what it found with the old; one that has joined
// does not.
func TestMetadataTaken(t *testing.T) {
	text := func(token string) string {
		return "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nname: w1\nendpoint: 192.0.2.9:6443\ntoken: " + token +
			"\ncaCertHashes: [\"sha256:" + strings.Repeat("0", 64) + "\"]\n"
	}
	const old, better, late = "aaaaaa.0123456789abcdef", "bbbbbb.0123456789abcdef", "cccccc.0123456789abcdef"
	ctx := context.Background()
	m := newTestMachine(t, map[string]string{userDataFile: text(old)})
	boot := func(userData, want string) {
		t.Helper()
		m.reboot(t)
		m.write(t, userDataFile, userData)
		if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
			t.Fatal(err)
		}
		if got := m.Node.Join.Discovery.BootstrapToken.Token.Reveal(); got != want {
			t.Errorf("the node has token %q, want %q", got, want)
		}
	}
	boot(text(old), old)
	m.write(t, node.BootstrapKubeconfig, "found with the old token")
	boot(text(better), better)
	if m.Host.Exists(node.BootstrapKubeconfig) {
		t.Errorf("%s is still what was found with the old token", node.BootstrapKubeconfig)
	}
	m.write(t, node.KubeletKubeconfig, "of a node that has joined")
	boot(text(late), better)
	if !strings.Contains(m.log.String(), "is not applied") || strings.Contains(m.log.String(), "0123456789abcdef") {
		t.Errorf("the log says: %s", m.log.String())
	}
}

// TestMetadataTakenAnew: a control plane that waits to join, and is given another
// name, does not keep what was signed for the first one. What it was given by
// hand stays, what came with a certificate key goes.
func TestMetadataTakenAnew(t *testing.T) {
	ctx := context.Background()
	for name, key := range map[string]string{"downloaded": "certificateKey: " + strings.Repeat("ab", 32) + "\n", "by hand": ""} {
		text := func(name string) string {
			return "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: control-plane\nname: " + name +
				"\nendpoint: 192.0.2.9:6443\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [\"sha256:" + strings.Repeat("0", 64) + "\"]\n" + key
		}
		m := newTestMachine(t, map[string]string{userDataFile: text("cp2")})
		if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
			t.Fatal(err)
		}
		first, _, err := config.Load(m.Baked, config.Machine{Hostname: "cp1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.4/24")}}}},
			config.Document{Source: "test", Data: []byte(shortUserData)})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.FreezeCluster(m.Node, config.Cluster{Cluster: first.Cluster, Kubelet: first.Kubelet, KubeProxy: first.KubeProxy}); err != nil {
			t.Fatal(err)
		}
		if m.Node, _, err = node.Load(m.Host); err != nil {
			t.Fatal(err)
		}
		if err := runSteps(ctx, m.Machine, stepCerts()); err != nil {
			t.Fatal(err)
		}
		passed := func() bool {
			ok, err := stepPreflight().Done(ctx, m.Machine)
			return ok && err == nil
		}
		if err := m.Host.WriteJSON(preflightFile, preflightPassed{MadeFrom: node.MadeFrom(m.Node), Time: m.Host.Now()}); err != nil || !passed() || !m.Node.KnowsCluster() {
			t.Fatalf("%v; preflight has passed: %t, and the cluster is known: %t", err, passed(), m.Node.KnowsCluster())
		}
		m.reboot(t)
		m.write(t, userDataFile, text("cp3"))
		if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
			t.Fatal(err)
		}
		if got := m.Node.Init.NodeRegistration.Name; got != "cp3" {
			t.Errorf("%s: the node is %s", name, got)
		}
		there := func(file string) bool { return m.Host.Exists("/etc/kubernetes/pki/" + file) }
		if there("apiserver.crt") || there("etcd/peer.key") || m.Node.KnowsCluster() || passed() {
			t.Errorf("%s: what was made for the other name still counts", name)
		}
		if kept := key == ""; there("ca.key") != kept || there("sa.key") != kept || there("etcd/ca.crt") != kept {
			t.Errorf("%s: the authority's key is there: %t", name, there("ca.key"))
		}
	}
}

func TestMetadataWaits(t *testing.T) {
	ctx := context.Background()
	m := newTestMachine(t, nil)
	if w := why(t, stepMetadata().Do(ctx, m.Machine)); !strings.Contains(w, "kbuild.userdata") || !strings.Contains(w, "cidata") {
		t.Errorf("without user-data: %s", w)
	}
	m.write(t, udevQueue[1:], "")
	if w := why(t, stepMetadata().Do(ctx, m.Machine)); !strings.Contains(w, "devices") {
		t.Errorf("before all devices are there: %s", w)
	}
	if err := m.Host.Remove(udevQueue); err != nil {
		t.Fatal(err)
	}
	m.write(t, userDataFile, shortUserData+"podSubnets: 10.0.0.0/8\ntoken: abcdef.a1b2c3d4e5f6a7b8\n")
	w := why(t, stepMetadata().Do(ctx, m.Machine))
	if !strings.Contains(w, "credential kbuild.userdata:5:") || !strings.Contains(w, "did you mean podSubnet?") || strings.Contains(w, "a1b2c3") {
		t.Errorf("with bad user-data: %s", w)
	}
	if len(m.tree(t)) != 1 {
		t.Errorf("bad user-data left something behind: %v", m.tree(t))
	}
	m.write(t, userDataFile, shortUserData)
	links := m.Host.Probe.Links
	m.Host.Probe.Links = func() ([]host.Link, error) { return nil, nil }
	if w := why(t, stepMetadata().Do(ctx, m.Machine)); !strings.Contains(w, "address") {
		t.Errorf("without an address: %s", w)
	}
	m.Host.Probe.Links = links
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Errorf("mended: %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// On a platform the node waits for its service by name, is made of what that
// says, and says so; later boots do not need the service.
func TestMetadataPlatform(t *testing.T) {
	ctx := context.Background()
	m := newTestMachine(t, map[string]string{"sys/class/dmi/id/product_name": "OpenStack Nova\n", "proc/uptime": "20.00 31.00\n"})
	var user string
	var service roundTrip
	m.Host.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return service(r) })}

	service = func(*http.Request) (*http.Response, error) { return nil, errors.New("network is unreachable") }
	w := why(t, stepMetadata().Do(ctx, m.Machine))
	if !strings.Contains(w, "OpenStack metadata service: waiting for it at 169.254.169.254: network is unreachable") {
		t.Errorf("not reached: %s", w)
	}
	if wait, _ := errors.AsType[outcome.Retry](stepMetadata().Do(ctx, m.Machine)); wait.After < time.Second || wait.After > 3*time.Second {
		t.Errorf("up for 20 s, it waits for %v", wait.After)
	}

	answers := func(r *http.Request) (*http.Response, error) {
		text, status := "", http.StatusNotFound
		switch r.URL.Path {
		case "/openstack/latest/meta_data.json":
			text, status = `{"uuid": "d8e02d56", "hostname": "node-7.novalocal"}`, http.StatusOK
		case "/openstack/latest/user_data":
			if user != "" {
				text, status = user, http.StatusOK
			}
		}
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
	}
	service = answers
	if w := why(t, stepMetadata().Do(ctx, m.Machine)); !strings.Contains(w, "there is none yet") {
		t.Errorf("without user-data: %s", w)
	}
	user = "#cloud-config\nusers: []\nkbuild:\n  apiVersion: kbuild.dev/v1alpha1\n  kind: NodeMetadata\n  role: init\n  clusterName: seven\n"
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	if m.hostname != "node-7.novalocal" || m.Node.Sources["cluster.clusterName"] != "OpenStack user-data, key kbuild of its #cloud-config, line 7" || !strings.HasPrefix(m.Node.Sources[node.UserDataSource], "OpenStack user-data, sha256:") {
		t.Errorf("host name %q, sources %q", m.hostname, m.Node.Sources)
	}
	if !strings.Contains(m.log.String(), `ignored are \"users\"`) && !strings.Contains(m.log.String(), `ignored are \\\"users`) {
		t.Errorf("no warning of what is ignored: %s", m.log.String())
	}

	for name, s := range map[string]roundTrip{
		"the same": answers,
		"gone":     func(*http.Request) (*http.Response, error) { return nil, errors.New("network is unreachable") },
		"hangs":    func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
	} {
		m.reboot(t)
		service = s
		if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil || m.Node.Cluster.ClusterName != "seven" || strings.Contains(m.log.String(), "has changed") {
			t.Errorf("another boot, the service is %s: %v, log: %s", name, err, m.log.String())
		}
	}
	m.reboot(t)
	service, user = answers, strings.Replace(user, "seven", "eight", 1)
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil || m.Node.Cluster.ClusterName != "seven" || !strings.Contains(m.log.String(), "has changed") {
		t.Errorf("other user-data: %v, log: %s", err, m.log.String())
	}
}

// A service is asked again soon after the machine came up, and seldom later.
func TestMetadataBackoff(t *testing.T) {
	for uptime, want := range map[string]time.Duration{"": time.Second / 2, "3.5 1.0": time.Second / 2, "100.00 5.00": 10 * time.Second, "86400.12 1.0": metadataSlow, "1e300 0": metadataSlow, "-5 0": time.Second / 2, "NaN": time.Second / 2} {
		m := newTestMachine(t, map[string]string{"proc/uptime": uptime + "\n"})
		if got := backoff(m.Host); got < want*9/10 || got > want*11/10 {
			t.Errorf("up for %q: %v, want %v", uptime, got, want)
		}
	}
}

func TestMetadataBaked(t *testing.T) {
	ctx := context.Background()
	cluster := "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nclusterName: baked\n"
	m := newTestMachine(t, map[string]string{images.BakedConfig: cluster, "etc/machine-id": "0123456789abcdef0123456789abcdef\n"})
	if w := why(t, stepMetadata().Do(ctx, m.Machine)); !strings.Contains(w, "there is none yet") {
		t.Errorf("a baked ClusterConfiguration alone: %s", w)
	}
	m.write(t, images.BakedConfig, cluster+"---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n")
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil || m.Node.Cluster.ClusterName != "baked" {
		t.Errorf("a baked InitConfiguration: %v", err)
	}
}

func TestMetadataFrozenBad(t *testing.T) {
	ctx := context.Background()
	m := newTestMachine(t, map[string]string{userDataFile: shortUserData})
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	frozen, err := os.ReadFile(filepath.Join(m.dir, node.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"torn":      {"\"role\"", "", "cannot read"},
		"foreign":   {"\"role\"", "\"rule\": 1, \"role\"", "cannot read"},
		"not valid": {"10.96.0.0/12", "10.96.0.0/30", "too few"},
	} {
		m.reboot(t)
		m.write(t, node.ConfigFile, strings.ReplaceAll(string(frozen), c.from, c.to))
		if done, err := stepMetadata().Done(ctx, m.Machine); done || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v %v", name, done, err)
		}
		if m.Node != nil {
			t.Errorf("%s: it is used", name)
		}
	}
}

// The power goes at each change; the next boot ends where an uninterrupted one
// does.
func TestMetadataCrash(t *testing.T) {
	ctx := context.Background()
	data := map[string]string{userDataFile: shortUserData + "token: abcdef.a1b2c3d4e5f6a7b8\n"}
	whole := newTestMachine(t, data)
	effects := 0
	whole.Host.Effect = func(string) error { effects++; return nil }
	if err := runSteps(ctx, whole.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	if effects < 4 {
		t.Fatalf("only %d changes", effects)
	}
	want := whole.tree(t)
	power := errors.New("no power")
	for k := range effects {
		m := newTestMachine(t, data)
		n := 0
		m.Host.Effect = func(string) error {
			if n++; n > k {
				return power
			}
			return nil
		}
		if err := runSteps(ctx, m.Machine, firstSteps()...); !errors.Is(err, power) {
			t.Fatalf("change %d: %v", k, err)
		}
		m.reboot(t)
		if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
			t.Errorf("after change %d: %v", k, err)
		}
		if d := cmp.Diff(want, m.tree(t)); d != "" {
			t.Errorf("after change %d:\n%s", k, d)
		}
	}
}

func TestDefaultRoutes(t *testing.T) {
	m := newTestMachine(t, map[string]string{
		"proc/net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
			"eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
			"eth1\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
		"proc/net/ipv6_route": "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n" +
			"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
	})
	got := node.DefaultRoutes(m.Host)
	if len(got) != 2 || got[0].Link != "eth1" || got[0].IPv6 || got[1].Link != "eth0" || !got[1].IPv6 {
		t.Errorf("%+v", got)
	}
}

// TestMetadataRebaked: the next image's own configuration counts from its first
// boot on, and the image's before when that one is booted again; the user-data
// may be gone by then.
func TestMetadataOtherImage(t *testing.T) {
	image := func(flag string) string {
		return "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\napiServer:\n  extraArgs:\n    v: \"" + flag + "\"\n"
	}
	const file = "usr/share/kbuild/config.yaml"
	m := newTestMachine(t, map[string]string{userDataFile: shortUserData, file: image("2")})
	boot := func(want string) {
		t.Helper()
		m.reboot(t)
		for range 2 { // the second finds nothing to do
			if err := runSteps(t.Context(), m.Machine, firstSteps()...); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Node.Cluster.APIServer.ExtraArgs.Get("v"); got != want || m.Node.Init.NodeRegistration.Name != "cp-1.example.org" {
			t.Errorf("v is %q, want %q; %s", got, want, m.Node.Init.NodeRegistration.Name)
		}
	}
	boot("2")
	if err := os.Remove(filepath.Join(m.dir, userDataFile)); err != nil {
		t.Fatal(err)
	}
	m.write(t, file, image("3"))
	boot("3")
	if log := m.log.String(); !strings.Contains(log, "cluster.apiServer.extraArgs.v") {
		t.Errorf("the log does not name the field:\n%s", log)
	}
	frozen := m.tree(t)["var/lib/kbuild/node.json"]
	boot("3")
	if d := cmp.Diff(frozen, m.tree(t)["var/lib/kbuild/node.json"]); d != "" {
		t.Errorf("the next boot of the same image changed it:\n%s", d)
	}
	m.write(t, file, image("2"))
	boot("2")
	if err := os.Remove(filepath.Join(m.dir, file)); err != nil {
		t.Fatal(err)
	}
	boot("")
	m.write(t, file, "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\napiServr: {}\n")
	m.reboot(t)
	err := runSteps(t.Context(), m.Machine, firstSteps()...)
	if final, ok := errors.AsType[outcome.Refused](err); !ok || !strings.Contains(final.Error(), "line 3") && !strings.Contains(final.Error(), ":3") {
		t.Errorf("a bad file in the image: %v", err)
	}
}
