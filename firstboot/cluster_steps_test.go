package firstboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

const testUserdata = `apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
bootstrapTokens:
- token: abcdef.0123456789abcdef
  description: for tests
nodeRegistration:
  name: node-1
localAPIEndpoint:
  advertiseAddress: 192.0.2.10
certificateKey: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
kubernetesVersion: v1.19.12
networking:
  podSubnet: 10.244.0.0/16
`

// clusterSteps are the steps of this file's subject, in order.
func clusterSteps() []converge.Step {
	return []converge.Step{stepUploadConfig(), stepUploadCerts(), stepMarkControlPlane(), stepBootstrapToken(), stepAddon()}
}

// clusterRun is a machine whose API server is s, after its control plane came
// up and its kubelet registered.
func clusterRun(t testing.TB, s *apitest.Server, userdata string) *node.Machine {
	t.Helper()
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	baked := images.Baked{Arch: "amd64", CNI: "flannel", PodCIDR: "10.244.0.0/16", Release: release}
	machine := config.Machine{Hostname: "node-1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
	n, _, err := config.Load(baked, machine, config.Document{Source: "test", Data: []byte(userdata)})
	if err != nil {
		t.Fatal(err)
	}
	n.Init.UploadCerts = true
	m := &node.Machine{Baked: baked, Node: n, Host: testHost(t)}
	dir := m.Host.Path("/")
	files := map[string]string{
		"etc/kubernetes/admin.conf":                     string(s.AdminConf),
		"usr/share/kbuild/manifests/10-namespace.yaml":  "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
		"usr/share/kbuild/manifests/20-config.yaml":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: prices, namespace: shop}\ndata: {apple: \"1\"}\n",
		"usr/share/kbuild/manifests/README-is-not.text": "not a manifest",
	}
	for _, f := range []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key", "etcd/ca.crt", "etcd/ca.key"} {
		files["etc/kubernetes/pki/"+f] = "content of " + f
		if b, err := os.ReadFile(filepath.Join(s.Dir, "pki", f)); err == nil && s.Dir != "" {
			files["etc/kubernetes/pki/"+f] = string(b)
		}
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// testHost is a machine with an empty disk and a stopped clock.
func testHost(t testing.TB) *host.Host {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	now := time.Now().Truncate(time.Second)
	return &host.Host{Root: root, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}
}

// registerNode does what the kubelet and the API server do before the steps.
func registerNode(t testing.TB, c kubernetes.Interface) {
	t.Helper()
	_, err := c.CoreV1().Nodes().Create(context.Background(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "node-1", Labels: map[string]string{corev1.LabelHostname: "node-1"}, Annotations: map[string]string{"kept": "yes"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// runSteps runs steps as the runner does, with a shorter breath.
func runSteps(ctx context.Context, m *node.Machine, steps ...converge.Step) error {
	for _, s := range steps {
		for tries := 0; ; tries++ {
			done, err := s.Done(ctx, m)
			if err == nil && done {
				if s.Loads {
					m.Node, _, err = node.Load(m.Host)
				}
				if err != nil {
					return err
				}
				break
			}
			if err == nil {
				if err = s.Do(ctx, m); err == nil {
					if done, err = s.Done(ctx, m); err == nil && !done {
						return fmt.Errorf("%s: the step ran, but its check still fails", s.Name)
					}
				}
			}
			var wait outcome.Retry
			if err != nil && (!errors.As(err, &wait) || tries > 100) {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if err != nil {
				time.Sleep(min(wait.After, 50*time.Millisecond))
			}
		}
	}
	return nil
}

// servers runs a test with the API server in memory, and with the real one
// where there is one.
func servers(t *testing.T, test func(t *testing.T, start func(testing.TB) *apitest.Server)) {
	t.Run("memory", func(t *testing.T) { test(t, apitest.Memory) })
	t.Run("real", func(t *testing.T) { test(t, apitest.Real) })
}

func TestClusterSteps(t *testing.T) {
	servers(t, func(t *testing.T, start func(testing.TB) *apitest.Server) {
		ctx := context.Background()
		s := start(t)
		c := s.Client(t)
		m := clusterRun(t, s, testUserdata)
		var wait outcome.Retry
		if _, err := stepMarkControlPlane().Done(ctx, m); !errors.As(err, &wait) {
			t.Errorf("without a Node, Done returned %v, want a Retry", err)
		}
		registerNode(t, c)
		for _, step := range clusterSteps() {
			if done, err := step.Done(ctx, m); done || err != nil {
				t.Errorf("%s: fresh, Done = %v, %v; want false", step.Name, done, err)
			}
			if err := runSteps(ctx, m, step); err != nil {
				t.Fatal(err)
			}
		}
		before := dump(t, c)
		var changes []string
		m.Host.Effect = func(what string) error { changes = append(changes, what); return nil }
		if err := runSteps(ctx, m, clusterSteps()...); err != nil {
			t.Fatal(err)
		}
		if changes != nil {
			t.Errorf("a second boot changed something: %q", changes)
		}
		m.Host.Effect = nil
		for _, step := range clusterSteps() {
			if err := step.Do(ctx, m); err != nil {
				t.Errorf("%s: Do again: %v", step.Name, err)
			}
		}
		if d := cmp.Diff(before, dump(t, c)); d != "" {
			t.Errorf("Do again changed the cluster (-before +after):\n%s", d)
		}
	})
}

// TestClusterStepsCrash cuts the power at each change that the steps make, and
// boots again: the cluster must end as if nothing had happened.
func TestClusterStepsCrash(t *testing.T) {
	servers(t, func(t *testing.T, start func(testing.TB) *apitest.Server) {
		ctx := context.Background()
		s := start(t)
		c := s.Client(t)
		clean := dump(t, c)
		registerNode(t, c)
		m := clusterRun(t, s, testUserdata)
		var total atomic.Int64
		m.Host.Effect = func(string) error { total.Add(1); return nil }
		if err := runSteps(ctx, m, clusterSteps()...); err != nil {
			t.Fatal(err)
		}
		want := dump(t, c)
		// Parallel requests make the number vary a little: some follow only
		// when another came first.
		for k := int64(1); k <= total.Load(); k++ {
			wipe(t, c, clean)
			registerNode(t, c)
			m := clusterRun(t, s, testUserdata)
			cut := errors.New("power cut")
			var n atomic.Int64
			m.Host.Effect = func(string) error {
				if n.Add(1) >= k {
					return cut
				}
				return nil
			}
			if err := runSteps(ctx, m, clusterSteps()...); !errors.Is(err, cut) && n.Load() >= k {
				t.Fatalf("cut at change %d: the error was %v", k, err)
			}
			m.Host.Effect = nil
			if err := runSteps(ctx, m, clusterSteps()...); err != nil {
				t.Fatalf("boot after a cut at change %d: %v", k, err)
			}
			if d := cmp.Diff(want, dump(t, c)); d != "" {
				t.Fatalf("a cut at change %d left another cluster (-want +got):\n%s", k, d)
			}
		}
		t.Logf("%d changes, each cut", total.Load())
	})
}
