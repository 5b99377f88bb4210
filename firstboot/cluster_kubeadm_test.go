package firstboot

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/node"
)

// differencesFile lists each place in which kbuild's cluster differs from
// kubeadm's, with the reason.
const differencesFile = "testdata/kubeadm-cluster-differences.txt"

// kubeadmRoot is a root directory for kubeadm --rootfs, with the files of r's
// machine.
func kubeadmRoot(t testing.TB, m *node.Machine, userdata string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("kubeadm --rootfs needs root")
	}
	root := m.Host.Path("/")
	if err := os.WriteFile(filepath.Join(root, "kubeadm.yaml"), []byte(userdata), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func kubeadm(t testing.TB, root string, args ...string) string {
	t.Helper()
	cmd := exec.Command(apitest.Bin(t, "kubeadm"), append([]string{"--rootfs=" + root}, args...)...)
	cmd.Env = []string{} // its add-ons copy proxy variables
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubeadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestKubeadmParity compares, object by object, what the steps make with what
// real kubeadm of the same version makes from the same configuration.
func TestKubeadmParity(t *testing.T) {
	apitest.Bin(t, "kubeadm")
	configs := map[string]string{
		"default": testUserdata,
		"settings": strings.ReplaceAll(testUserdata, "networking:\n", `controlPlaneEndpoint: api.example.com
imageRepository: registry.example.com/k8s
clusterName: prod
dns: {type: CoreDNS, imageTag: 1.7.1}
apiServer: {certSANs: [api.example.com], extraArgs: {v: "4"}}
networking:
  dnsDomain: prod.example.com
  serviceSubnet: 10.96.0.0/16
`) + `---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
maxPods: 50
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
`,
		"no-taint": strings.ReplaceAll(testUserdata, "  name: node-1\n", "  name: node-1\n  taints: []\n"),
		"taints":   strings.ReplaceAll(testUserdata, "  name: node-1\n", "  name: node-1\n  taints: [{key: dedicated, value: infra, effect: NoSchedule}]\n"),
	}
	listed := differences(t)
	seen := map[string]bool{}
	for name, userdata := range configs {
		t.Run(name, func(t *testing.T) {
			ours := apitest.Real(t)
			m := clusterRun(t, ours, userdata)
			m.Baked.CNI = "none" // kubeadm installs no pod network, and no manifests
			if err := m.Host.Root.RemoveAll("usr/share/kbuild/manifests"); err != nil {
				t.Fatal(err)
			}
			registerNode(t, ours.Client(t))
			if err := runSteps(context.Background(), m, clusterSteps()...); err != nil {
				t.Fatal(err)
			}

			theirs := apitest.Real(t)
			registerNode(t, theirs.Client(t))
			root := kubeadmRoot(t, clusterRun(t, theirs, userdata), kubeadmDocument(userdata))
			const conf = "--config=/kubeadm.yaml"
			kubeadm(t, root, "init", "phase", "upload-config", "all", conf)
			kubeadm(t, root, "init", "phase", "upload-certs", "--upload-certs", conf)
			kubeadm(t, root, "init", "phase", "mark-control-plane", conf)
			kubeadm(t, root, "init", "phase", "bootstrap-token", conf)
			kubeadm(t, root, "init", "phase", "addon", "all", conf)

			got, want := portless(t, dump(t, ours.Client(t)), ours), portless(t, dump(t, theirs.Client(t)), theirs)
			for _, d := range compare(want, got) {
				at, _, _ := strings.Cut(d, ": ")
				seen[at] = true
				if listed[at] == "" {
					t.Error(d)
				}
			}
		})
	}
	for k := range listed {
		if !seen[k] && !t.Failed() {
			t.Errorf("%s lists %q, which does not differ any more: remove it", differencesFile, k)
		}
	}
}

// kubeadmDocument is userdata with what only kbuild chooses by itself: the
// machine's container runtime and its cgroup driver.
func kubeadmDocument(userdata string) string {
	userdata = strings.Replace(userdata, "  name: node-1\n", "  name: node-1\n  criSocket: /run/containerd/containerd.sock\n", 1)
	return userdata
}

// portless makes what two servers are known by alike.
func portless(t testing.TB, all tree, s *apitest.Server) tree {
	t.Helper()
	info := all["ConfigMap kube-public/cluster-info"].(map[string]any)["data"].(map[string]any)["kubeconfig"].(map[string]any)
	entry := info["clusters"].([]any)[0].(map[string]any)["cluster"].(map[string]any)
	if entry["server"] != s.URL {
		t.Errorf("cluster-info names %v, want %s", entry["server"], s.URL)
	}
	ca, err := os.ReadFile(filepath.Join(s.Dir, "pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if want := base64.StdEncoding.EncodeToString(ca); entry["certificate-authority-data"] != want {
		t.Errorf("cluster-info names another CA: %v", entry["certificate-authority-data"])
	}
	entry["server"], entry["certificate-authority-data"] = "server", "ca"
	for name, v := range all["Secret kube-system/kubeadm-certs"].(map[string]any)["data"].(map[string]any) {
		b, err := os.ReadFile(filepath.Join(s.Dir, "pki", strings.Replace(name, "etcd-", "etcd/", 1)))
		if err != nil || string(b) != v {
			t.Errorf("kubeadm-certs: %s is not the file's content (%v)", name, err)
		}
		all["Secret kube-system/kubeadm-certs"].(map[string]any)["data"].(map[string]any)[name] = "content"
	}
	return all
}

// compare returns "KIND NAME PATH: kubeadm has …, kbuild has …" for each place
// where two clusters differ; an object that only one has is one place.
func compare(kubeadm, kbuild tree) []string {
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(union(kubeadm, kbuild))) {
		a, b := map[string]any{}, map[string]any{}
		flatten(kubeadm[name], "", a)
		flatten(kbuild[name], "", b)
		if kubeadm[name] == nil || kbuild[name] == nil {
			diffs = append(diffs, fmt.Sprintf("%s: kubeadm has it: %t, kbuild has it: %t", name, kubeadm[name] != nil, kbuild[name] != nil))
			continue
		}
		for _, path := range slices.Sorted(maps.Keys(union(a, b))) {
			if !cmp.Equal(a[path], b[path]) {
				diffs = append(diffs, fmt.Sprintf("%s %s: kubeadm has %v, kbuild has %v", name, path[1:], a[path], b[path]))
			}
		}
	}
	return diffs
}

func union[M ~map[string]any](a, b M) M {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

// flatten puts each leaf of v into out, by its path.
func flatten(v any, path string, out map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			out[path+"."] = "empty"
		}
		for k, e := range v {
			flatten(e, path+"."+k, out)
		}
	case []any:
		if len(v) == 0 {
			out[path+"."] = "empty"
		}
		for i, e := range v {
			flatten(e, fmt.Sprintf("%s.%d", path, i), out)
		}
	default:
		out[path] = v
	}
}

// differences reads differencesFile: KIND NAME [PATH]: REASON, # for comments.
func differences(t testing.TB) map[string]string {
	t.Helper()
	f, err := os.Open(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	listed := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		object, reason, ok := strings.Cut(line, ": ")
		if !ok || reason == "" {
			t.Fatalf("%s: %q has no reason", differencesFile, line)
		}
		listed[object] = reason
	}
	return listed
}

// TestKubeadmJoins lets real kubeadm do what a joining control-plane node does
// first: find the cluster by the token and the CA's hash, read its
// configuration, and decrypt the certificates.
func TestKubeadmJoins(t *testing.T) {
	s := apitest.Real(t)
	s.ControllerManager(t, []string{"bootstrapsigner", "tokencleaner"})
	m := clusterRun(t, s, strings.ReplaceAll(testUserdata, "networking:\n", "controlPlaneEndpoint: api.example.com\nnetworking:\n"))
	registerNode(t, s.Client(t))
	if err := runSteps(context.Background(), m, clusterSteps()...); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(s.Dir, "pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	root := kubeadmRoot(t, &node.Machine{Host: testHost(t)}, fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta2
kind: JoinConfiguration
nodeRegistration: {name: node-2, criSocket: /run/containerd/containerd.sock}
discovery:
  tlsBootstrapToken: abcdef.0123456789abcdef
  bootstrapToken:
    token: abcdef.0123456789abcdef
    apiServerEndpoint: %s
    caCertHashes: ["sha256:%x"]
controlPlane:
  certificateKey: %s
  localAPIEndpoint: {advertiseAddress: 192.0.2.11}
`, strings.TrimPrefix(s.URL, "https://"), sha256.Sum256(cert.RawSubjectPublicKeyInfo), string(m.Node.Init.CertificateKey)))
	out := kubeadm(t, root, "join", "phase", "control-plane-prepare", "download-certs", "--config=/kubeadm.yaml")
	for _, f := range []string{"ca.crt", "ca.key", "sa.key", "sa.pub", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key"} {
		want, err := os.ReadFile(filepath.Join(s.Dir, "pki", f))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/pki", f))
		if err != nil || string(got) != string(want) {
			t.Errorf("kubeadm wrote another %s (%v)\n%s", f, err, out)
		}
	}
	_, err = s.Client(t).CoreV1().Secrets(metav1.NamespaceSystem).Get(context.Background(), "kubeadm-certs", metav1.GetOptions{})
	if err != nil {
		t.Error(err)
	}
}
