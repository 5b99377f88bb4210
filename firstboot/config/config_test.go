package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

func machine() Machine {
	return Machine{
		Hostname:  "Node-A",
		MachineID: "0123456789abcdef0123456789abcdef",
		Links: []Link{
			{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::5/64")}},
		},
		Routes: []Route{{Link: "eth0"}},
		Random: zeros{},
	}
}

// zeros is the randomness of tests.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func baked(t testing.TB) images.Baked {
	return images.Baked{Release: release(t, "v1.19.12"), CNI: "flannel", PodCIDR: "10.244.0.0/16"}
}

func load(t testing.TB, text string) (*Node, []string, error) {
	t.Helper()
	return Load(baked(t), machine(), Document{Source: "test", Data: []byte(text)})
}

func mustLoad(t testing.TB, text string) *Node {
	t.Helper()
	n, _, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const short = "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n"

func glob(t *testing.T, pattern string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

// Every bad document gives the error beside it, and no secret in it.
func TestBad(t *testing.T) {
	for _, file := range glob(t, "testdata/bad/*.yaml", 25) {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = load(t, string(b))
			var probs Problems
			if !errors.As(err, &probs) {
				t.Fatalf("no problem is found: %v", err)
			}
			for _, p := range probs {
				if p.Source == "" || p.Remedy == "" {
					t.Errorf("without source or remedy: %+v", p)
				}
			}
			for _, secret := range []string{"a1b2c3d4e5f6a7b8", "fedcba9876543210"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret:\n%s", err)
				}
			}
			golden.Compare(t, strings.TrimSuffix(file, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

// The examples are what a user may write.
func TestExamples(t *testing.T) {
	for _, file := range glob(t, "testdata/examples/*.yaml", 4) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n, warnings, err := load(t, string(b))
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%v %v", err, warnings)
			}
			out, err := json.MarshalIndent(n, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, strings.TrimSuffix(file, ".yaml")+".golden", string(out)+"\n")
			// What is frozen is read back as it was.
			var back Node
			if err := json.Unmarshal(out, &back); err != nil {
				t.Fatal(err)
			}
			again, err := json.MarshalIndent(back, "", " ")
			if err != nil || string(again) != string(out) {
				t.Errorf("frozen and thawed, it differs: %v\n%s", err, cmp.Diff(string(out), string(again)))
			}
			for _, m := range []func(*Node, images.Release) ([]byte, error){MarshalCluster, MarshalKubelet, MarshalKubeProxy} {
				one, err1 := m(n, baked(t).Release)
				two, err2 := m(&back, baked(t).Release)
				if err1 != nil || err2 != nil || string(one) != string(two) {
					t.Errorf("frozen and thawed, it is written otherwise: %v %v", err1, err2)
				}
			}
		})
	}
}

func TestLayers(t *testing.T) {
	b := baked(t)
	under := Document{Source: "image", Baked: true, Data: []byte("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nclusterName: baked\napiServer: {certSANs: [a, b], extraArgs: {v: \"1\", profiling: \"false\"}}\n")}
	over := Document{Source: "user", Data: []byte(short + "apiServerCertSANs: [c]\n---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\napiServer: {extraArgs: {v: \"2\"}}\n")}
	if _, _, err := Load(b, machine(), under); !errors.Is(err, ErrNoRole) {
		t.Errorf("a baked ClusterConfiguration alone: %v", err)
	}
	if _, _, err := Load(b, machine()); !errors.Is(err, ErrNoRole) {
		t.Errorf("nothing at all: %v", err)
	}
	if _, _, err := Load(b, machine(), Document{Source: "image", Baked: true, Data: []byte(short)}); err != nil {
		t.Errorf("a baked role: %v", err)
	}
	n, _, err := Load(b, machine(), under, over)
	if err != nil {
		t.Fatal(err)
	}
	want := Args{"v": {"2"}, "profiling": {"false"}, "authorization-mode": {"Node,RBAC"}}
	if d := cmp.Diff(want, n.Cluster.APIServer.ExtraArgs); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"c"}, n.Cluster.APIServer.CertSANs); d != "" {
		t.Error(d)
	}
	for path, want := range map[string]string{
		"cluster.clusterName":                   "image, line 3",
		"cluster.apiServer.extraArgs.v":         "user, line 8",
		"cluster.apiServer.extraArgs.profiling": "image, line 4",
		"cluster.apiServer.certSANs[0]":         "user, line 4",
		"cluster.apiServer.certSANs[1]":         "",
		"cluster.certificatesDir":               "default",
		"init.nodeRegistration.name":            "host name",
	} {
		if got := n.Sources[path]; got != want {
			t.Errorf("source of %s = %q, want %q", path, got, want)
		}
	}
}

func TestSecret(t *testing.T) {
	const secret = "abcdef.0123456789abcdef"
	n := mustLoad(t, short+"token: "+secret+"\n")
	if n.Init.BootstrapTokens[0].Token.Reveal() != secret {
		t.Fatal("the token is lost")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v %+v %#v %v %+v %q", n, n, n, n.Init, n.Init.BootstrapTokens, n.Init.BootstrapTokens[0].Token)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "n", n, "m", *n, "t", n.Init.BootstrapTokens[0].Token)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "n", n, "m", *n, "t", n.Init.BootstrapTokens[0].Token)
	if strings.Contains(b.String(), "0123456789") || strings.Contains(b.String(), fmt.Sprintf("%x", secret)) {
		t.Errorf("shown: %s", b.String())
	}
	j, err := json.Marshal(n)
	if err != nil || !strings.Contains(string(j), secret) {
		t.Errorf("JSON does not hold it: %v", err)
	}
}

// The table in doc.go is the one that the code has.
func TestDoc(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range nodeMetadata() {
		if line := fmt.Sprintf("//\t%-22s %s\n", f.name, typeForPeople(f.typ)); !strings.Contains(string(b), line) {
			t.Errorf("doc.go lacks %q", line)
		}
		if !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(string(b), "//", "")), " "), f.doc) {
			t.Errorf("doc.go lacks the meaning of %s: %q", f.name, f.doc)
		}
	}
	if rows := strings.Count(MetadataTable(), "\n"); rows != len(nodeMetadata())+2 {
		t.Errorf("the table has %d lines", rows)
	}
}

// One file may be for all nodes of a cluster: what is not for a node that joins
// is not used there, and that is said.
func TestJoinIgnores(t *testing.T) {
	join := "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nendpoint: 192.0.2.1\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [\"sha256:" + strings.Repeat("ab", 32) + "\"]\n"
	n, warnings, err := load(t, join+"---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nclusterName: x\n---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\n")
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "test, line 8: the ClusterConfiguration is not used") {
		t.Errorf("%v %q", err, warnings)
	}
	if n.Cluster.ClusterName != "" || n.Kubelet["cgroupDriver"] != nil || n.KnowsCluster() {
		t.Errorf("%+v %v", n.Cluster, n.Kubelet)
	}
	_, warnings, err = load(t, strings.Replace(join, "caCertHashes", "unsafeSkipCAVerification: true\n#", 1))
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "unsafeSkipCAVerification") {
		t.Errorf("without a pin: %v %q", err, warnings)
	}
}
