package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// quick is a configuration whose keys take no time to make.
const quick = `# Ours.
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
controlPlaneEndpoint: k8s.example.com:6443
featureGates: {PublicKeysECDSA: true}
networking:
  podSubnet: 10.32.0.0/16 # not flannel's own
`

// newCluster makes a cluster's directory, and returns it.
func newCluster(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "prod")
	code, _, stderr := run(t, quick, append([]string{"cluster", "new", dir, "--config", "-"}, args...)...)
	if code != cli.ExitOK {
		t.Fatalf("%d %s", code, stderr)
	}
	return dir
}

func mustKbuild(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := kbuild(t, args...)
	if code != cli.ExitOK {
		t.Fatalf("%q: %d %s", args, code, stderr)
	}
	return out
}

// secrets are the texts that only who should know them may see.
func secrets(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, name := range []string{"token", "certificate-key", "pki/ca.key", "pki/etcd/ca.key", "pki/front-proxy-ca.key", "pki/sa.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) > 1 {
			lines = lines[1:2]
		}
		all = append(all, lines...)
	}
	return all
}

// goldenText compares text, its secrets and keys replaced, with a file.
func goldenText(t *testing.T, name, got string) {
	t.Helper()
	for pattern, with := range map[string]string{
		`[a-z0-9]{6}\.[a-z0-9]{16}`:                             "TOKEN",
		`(?s)-----BEGIN ([A-Z ]+)-----.*?-----END [A-Z ]+-----`: "PEM of $1",
		`sha256:[0-9a-f]{64}`:                                   "sha256:PIN",
		`certificateKey: [^\n]+`:                                "certificateKey: KEY",
		`(?m)^(.*-data): [A-Za-z0-9=]+`:                         "$1: DATA",
		`;base64,[A-Za-z0-9+/=]+`:                               ";base64,DATA",
		`userdata=[A-Za-z0-9+/=]+`:                              "userdata=DATA",
	} {
		got = regexp.MustCompile(pattern).ReplaceAllString(got, with)
	}
	golden.Compare(t, filepath.Join("testdata", name), got)
}

// TestClusterGolden holds what is printed, whole.
func TestClusterGolden(t *testing.T) {
	tmp := t.TempDir()
	prod := filepath.Join(tmp, "prod")
	code, out, stderr := run(t, quick, "cluster", "new", prod, "--config", "-")
	if code != cli.ExitOK || stderr != "" {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, s := range secrets(t, prod) {
		if strings.Contains(out, s) {
			t.Error("cluster new prints a secret")
		}
	}
	printed := map[string]string{"cluster-new.txt": out}
	_, printed["cluster-new.json"], _ = run(t, quick, "cluster", "new", filepath.Join(tmp, "prod2"), "--config", "-", "-o", "json")
	for name, args := range map[string]string{
		"userdata-init.yaml":          "--role init --node cp1 --token-ttl 48h",
		"userdata-control-plane.yaml": "--role control-plane",
		"userdata-worker.yaml":        "--role worker --node w1",
		"userdata-worker.cloudconfig": "--role worker --format cloud-config",
		"userdata-worker.ign":         "--role worker --format ignition",
		"userdata-worker.smbios":      "--role worker --format smbios",
	} {
		printed[name] = mustKbuild(t, append([]string{"cluster", "userdata", prod}, strings.Fields(args)...)...)
	}
	printed["kubeconfig.yaml"] = mustKbuild(t, "cluster", "kubeconfig", prod)
	for name, text := range printed {
		goldenText(t, name, strings.ReplaceAll(text, tmp+"/", ""))
	}
}

// TestClusterFiles: who may read what, and nothing besides is left.
func TestClusterFiles(t *testing.T) {
	dir := newCluster(t)
	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(filepath.Dir(dir), func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == filepath.Dir(dir) {
			return err
		}
		i, err := d.Info()
		got[strings.TrimPrefix(name, filepath.Dir(dir)+"/")] = i.Mode()
		return err
	})
	want := map[string]fs.FileMode{
		"prod": fs.ModeDir | 0o700, "prod/pki": fs.ModeDir | 0o700, "prod/pki/etcd": fs.ModeDir | 0o700,
		"prod/cluster.yaml": 0o644, "prod/token": 0o600, "prod/certificate-key": 0o600,
		"prod/pki/ca.crt": 0o644, "prod/pki/ca.key": 0o600, "prod/pki/sa.pub": 0o644, "prod/pki/sa.key": 0o600,
		"prod/pki/etcd/ca.crt": 0o644, "prod/pki/etcd/ca.key": 0o600,
		"prod/pki/front-proxy-ca.crt": 0o644, "prod/pki/front-proxy-ca.key": 0o600,
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cluster.yaml"))
	if err != nil || !strings.Contains(string(b), "# not flannel's own") || !strings.HasSuffix(string(b), "clusterName: prod\n") {
		t.Errorf("cluster.yaml, %v:\n%s", err, b)
	}
	for name, args := range map[string][]string{
		"u.yaml": {"userdata", dir, "--role", "init"},
		"u.iso":  {"userdata", dir, "--role", "init", "--format", "nocloud-iso"},
		"k.conf": {"kubeconfig", dir},
	} {
		file := filepath.Join(t.TempDir(), name)
		args = append([]string{"cluster"}, append(args, "--out", file)...)
		if out := mustKbuild(t, args...); out != "" {
			t.Errorf("%q prints %q, too", args, out)
		}
		st, err := os.Stat(file)
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
		if others, err := os.ReadDir(filepath.Dir(file)); err != nil || len(others) != 1 {
			t.Errorf("%s: left %v, %v", name, others, err)
		}
		if code, _, stderr := kbuild(t, args...); code != cli.ExitUsage || !strings.Contains(stderr, "--force") {
			t.Errorf("%s over one that exists: %d %s", name, code, stderr)
		}
		mustKbuild(t, append(args, "--force")...)
	}
}

func TestClusterKubeconfig(t *testing.T) {
	dir := newCluster(t)
	for args, server := range map[string]string{"": "https://k8s.example.com:6443", "--server https://127.0.0.1:6443 --validity 8h": "https://127.0.0.1:6443"} {
		out := mustKbuild(t, append([]string{"cluster", "kubeconfig", dir}, strings.Fields(args)...)...)
		c, err := clientcmd.RESTConfigFromKubeConfig([]byte(out))
		if err != nil || c.Host != server {
			t.Errorf("%q: %v", args, err)
		}
		kc, err := clientcmd.Load([]byte(out))
		if err != nil || kc.CurrentContext != "kubernetes-admin@prod" {
			t.Errorf("context %q, %v", kc.CurrentContext, err)
		}
	}
}

// TestClusterEncrypted: with age recipients nothing secret lies in the clear,
// and the key of any of them opens it.
func TestClusterEncrypted(t *testing.T) {
	one, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	two, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := newCluster(t, "--encrypt-to", one.Recipient().String(), "--encrypt-to", two.Recipient().String())
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if bytes.Contains(b, []byte("PRIVATE")) || strings.HasSuffix(name, "token") || strings.HasSuffix(name, ".key") {
			t.Errorf("%s is in the clear", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	keyFile := func(text string) string {
		file := filepath.Join(t.TempDir(), "key.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, key := range []*age.X25519Identity{one, two} {
		out := mustKbuild(t, "cluster", "userdata", dir, "--role", "init", "--identity", keyFile("# mine\n"+key.String()+"\n"))
		if n := node(t, map[string][]byte{credentialFile: []byte(out)}); len(n.Init.PKI) != 8 {
			t.Errorf("%d files of PKI", len(n.Init.PKI))
		}
		mustKbuild(t, "cluster", "kubeconfig", dir, "--identity", keyFile(key.String()))
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "certificate-key.age")
	b, err := os.ReadFile(damaged)
	if err == nil {
		b[len(b)-1] ^= 1
		err = os.WriteFile(damaged, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ args, want string }{
		"no key":      {"--role worker", "give --identity FILE"},
		"another key": {"--role worker --identity " + keyFile(other.String()), "not encrypted to the given key"},
		"no key file": {"--role worker --identity /does/not/exist", "/does/not/exist"},
		"no keys":     {"--role worker --identity " + keyFile("hello"), "age-keygen"},
		"damaged":     {"--role control-plane --identity " + keyFile(one.String()), "certificate-key.age"},
	} {
		code, out, stderr := kbuild(t, append([]string{"cluster", "userdata", dir}, strings.Fields(c.args)...)...)
		if code != cli.ExitFailed || out != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d %q %s", name, code, out, stderr)
		}
	}
	// A secret key that is given for a public one is not shown.
	code, _, stderr := run(t, quick, "cluster", "new", dir+"2", "--config", "-", "--encrypt-to", one.String())
	if code != cli.ExitUsage || strings.Contains(stderr, one.String()) || !strings.Contains(stderr, "age-keygen") {
		t.Errorf("%d %s", code, stderr)
	}
}

// A run that is stopped leaves nothing.
func TestClusterInterrupted(t *testing.T) {
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, stderr bytes.Buffer
	code := Execute(ctx, []string{"cluster", "new", filepath.Join(parent, "c"), "--endpoint", "k8s.example.com"}, strings.NewReader(""), &out, &stderr)
	left, err := os.ReadDir(parent)
	if code != exitInterrupted || err != nil || len(left) != 0 {
		t.Errorf("%d %s, left %v, %v", code, stderr.String(), left, err)
	}
}
