package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// What kubeadm prints is what people begin with. The golden files of
// testdata/kubeadm/print are what real kubeadm printed; where KBUILD_ORACLE is
// set it is asked again.
func TestKubeadmPrints(t *testing.T) {
	initFields := []string{"ClusterConfiguration kubernetesVersion", "InitConfiguration bootstrapTokens[0].token", "InitConfiguration localAPIEndpoint.advertiseAddress", "InitConfiguration nodeRegistration.name"}
	joinFields := []string{"JoinConfiguration discovery.bootstrapToken.apiServerEndpoint", "JoinConfiguration discovery.bootstrapToken.token", "JoinConfiguration discovery.bootstrapToken.unsafeSkipCAVerification"}
	components := []string{"--component-configs", "KubeletConfiguration,KubeProxyConfiguration"}
	for _, version := range []string{"v1.19.12", "v1.20.15"} {
		minor := version[:len("v1.19")] + ".0"
		for _, c := range []struct {
			name   string
			args   []string
			fields []string // of what is still to be replaced
			edit   []string // what people replace, and by what
		}{
			{"init-defaults", slices.Concat([]string{"config", "print", "init-defaults"}, components), initFields,
				[]string{"1.2.3.4", "192.0.2.5", "name: node", "name: cp1", "abcdef.0123456789abcdef", "k7x2qp.0a1b2c3d4e5f6071", "kubernetesVersion: " + minor + "\n", ""}},
			{"join-defaults", slices.Concat([]string{"config", "print", "join-defaults"}, components), joinFields,
				[]string{"kube-apiserver:6443", "192.0.2.10:6443", "abcdef.0123456789abcdef", "k7x2qp.0a1b2c3d4e5f6071"}},
			{"migrate", []string{"config", "migrate", "--old-config", "OLD"}, nil, nil},
			{"migrate-unix", []string{"config", "migrate", "--old-config", "OLD"}, nil, nil},
		} {
			t.Run(version+"/"+c.name, func(t *testing.T) {
				file := filepath.Join("testdata/kubeadm/print", c.name+"."+version+".yaml")
				if os.Getenv("KBUILD_ORACLE") != "" {
					golden.Compare(t, file, printed(t, oracle(t, version), version, c.name, c.args))
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				b := images.Baked{Release: release(t, version), CNI: "none"}
				_, _, err = Load(b, machine(), Document{Source: file, Data: text})
				var fields []string
				probs, other := asProblems(err)
				for _, p := range probs {
					fields = append(fields, p.Field)
				}
				slices.Sort(fields)
				if other != nil || !slices.Equal(fields, c.fields) {
					t.Errorf("as printed: %v; want problems with %q", err, c.fields)
				}
				edited := strings.NewReplacer(c.edit...).Replace(string(text))
				n, warnings, err := Load(b, machine(), Document{Source: file, Data: []byte(edited)})
				if err != nil {
					t.Fatalf("edited: %v", err)
				}
				about := slices.DeleteFunc(warnings, func(w string) bool { return !strings.Contains(w, "criSocket") })
				if n.Init.NodeRegistration.CRISocket != CRISocket || len(about) != 1 {
					t.Errorf("CRI socket %s, %q", n.Init.NodeRegistration.CRISocket, about)
				}
			})
		}
	}
}

// printed is what kubeadm prints, on a machine without Docker.
func printed(t *testing.T, kubeadm, version, name string, args []string) string {
	t.Helper()
	if slices.Contains(args, "OLD") {
		socket := "/var/run/dockershim.sock"
		if name == "migrate-unix" {
			socket = "unix:///var/run/containerd/containerd.sock"
		}
		old := filepath.Join(t.TempDir(), "old.yaml")
		text := "apiVersion: kubeadm.k8s.io/v1beta1\nkind: InitConfiguration\nbootstrapTokens: [{token: k7x2qp.0a1b2c3d4e5f6071}]\nlocalAPIEndpoint: {advertiseAddress: 192.0.2.5}\nnodeRegistration: {name: cp1, criSocket: \"" + socket + "\"}\n" +
			"---\napiVersion: kubeadm.k8s.io/v1beta1\nkind: ClusterConfiguration\nkubernetesVersion: " + version + "\n"
		if err := os.WriteFile(old, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = slices.Clone(args)
		args[slices.Index(args, "OLD")] = old
	}
	cmd := exec.Command(kubeadm, args...)
	var stderr bytes.Buffer
	cmd.Stderr, cmd.Env = &stderr, []string{"PATH=/nonexistent"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubeadm: %v\n%s", err, stderr.String())
	}
	// It prints the host name for the node's.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(out), "\n  name: "+strings.ToLower(host)+"\n", "\n  name: node\n", 1)
}

// Other spellings of the image's socket mean it too; another runtime is refused.
func TestCRISocket(t *testing.T) {
	for socket, warns := range map[string]int{
		"/run/containerd/containerd.sock": 0, "unix:///run/containerd/containerd.sock": 0,
		"/var/run/containerd/containerd.sock": 1, "unix:///var/run/containerd/containerd.sock": 1,
		"/var/run/dockershim.sock": 1, "unix:///var/run/dockershim.sock": 1, "/run/dockershim.sock": 1,
		"/run/crio/crio.sock": -1, "unix:///var/run/cri-dockerd.sock": -1, "npipe:////./pipe/x": -1, "containerd.sock": -1,
	} {
		_, warnings, err := load(t, "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nnodeRegistration: {criSocket: \""+socket+"\"}\n")
		if (err != nil) != (warns < 0) || err == nil && len(warnings) != warns {
			t.Errorf("%s: %v %q", socket, err, warnings)
		}
	}
}

// What is right in the cases of testdata/taken is taken.
func TestTaken(t *testing.T) {
	for _, file := range glob(t, "testdata/taken/*.yaml", 4) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, warnings, err := load(t, string(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		reg, join := n.Init.NodeRegistration, n.Join.Discovery.BootstrapToken
		switch strings.TrimSuffix(filepath.Base(file), ".yaml") {
		case "anchors":
			if reg.Name != "cp1" || reg.CRISocket != CRISocket || n.Sources["init.nodeRegistration.criSocket"] != "test, line 2" {
				t.Errorf("%s: %+v, %q", file, reg, n.Sources["init.nodeRegistration.criSocket"])
			}
		case "ipv6-no-port":
			if join.APIServerEndpoint != "[2001:db8:1715::19e]:6443" {
				t.Errorf("%s: %q", file, join.APIServerEndpoint)
			}
		case "socket-var-run":
			if len(warnings) != 1 || reg.CRISocket != CRISocket {
				t.Errorf("%s: %q, %q", file, warnings, reg.CRISocket)
			}
		case "image-repository":
			if n.Cluster.ImageRepository != "arti.example.net:8082/k8s-remote-cache" {
				t.Errorf("%s: %q", file, n.Cluster.ImageRepository)
			}
		default:
			t.Errorf("%s: nothing says what is right", file)
		}
	}
}

// A merge key adds what the mapping does not say itself, and the first of
// several counts, as with real kubeadm.
func TestMergeKeys(t *testing.T) {
	const text = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nx-a: &a {name: from-a, kubeletExtraArgs: {v: \"2\"}}\nx-b: &b {name: from-b, kubeletExtraArgs: {v: \"3\"}, taints: []}\nnodeRegistration:\n  <<: [*a, *b]\n  name: own\nlocalAPIEndpoint: {advertiseAddress: 192.0.2.5}\n"
	n := mustLoad(t, text)
	if r := n.Init.NodeRegistration; r.Name != "own" || r.KubeletExtraArgs.Get("v") != "2" || len(r.Taints) != 0 {
		t.Errorf("%+v", r)
	}
	for _, circle := range []string{"x-a: &a {<<: *a}\nnodeRegistration: *a\n", "x-a: &a [*a, *a]\nnodeRegistration: {<<: *a}\n"} {
		if _, _, err := load(t, "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n"+circle); err == nil {
			t.Errorf("a circle is taken: %s", circle)
		}
	}
	if os.Getenv("KBUILD_ORACLE") == "" {
		return
	}
	old := filepath.Join(t.TempDir(), "old.yaml")
	if err := os.WriteFile(old, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(oracle(t, "v1.19.12"), "config", "migrate", "--old-config", old).Output()
	if err != nil || !strings.Contains(string(out), "name: own\n") || !strings.Contains(string(out), "v: \"2\"\n") || !strings.Contains(string(out), "taints: []\n") {
		t.Errorf("kubeadm: %v\n%s", err, out)
	}
}

// What a cluster keeps may hold a null anywhere; what is written for a node
// may not. A node that joins takes its own machine's cgroup driver.
func TestClusterKeeps(t *testing.T) {
	n := mustLoad(t, "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nendpoint: 192.0.2.10\ntoken: k7x2qp.0a1b2c3d4e5f6071\ncaCertHashes: [\"sha256:"+strings.Repeat("ab", 32)+"\"]\n")
	c, warnings, err := ReadCluster(n, baked(t), machine(),
		Document{Source: "kubeadm-config", Data: []byte("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: v1.19.12\nscheduler:\ncontrollerManager: {extraArgs: null}\n")},
		Document{Source: "kubelet-config", Data: []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\nevictionHard: null\n")})
	if err != nil || c.Kubelet["cgroupDriver"] != "systemd" || len(warnings) != 1 || !strings.Contains(warnings[0], "cgroup driver") {
		t.Errorf("%v %v %q", c.Kubelet, err, warnings)
	}
}

// The forms that Windows and its editors give a file are read.
func TestText(t *testing.T) {
	want := short + "name: cp1\n"
	for name, text := range map[string]string{
		"mark": "\xef\xbb\xbf" + want, "CRLF": strings.ReplaceAll(want, "\n", "\r\n"),
		"UTF-16LE": "\xff\xfe" + utf16LE(want), "UTF-16BE": "\xfe\xff" + swap(utf16LE(want)), "UTF-16LE, no mark": utf16LE(want), "UTF-16BE, no mark": swap(utf16LE(want)),
	} {
		n, _, err := load(t, text)
		if err != nil || n.Init.NodeRegistration.Name != "cp1" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func utf16LE(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

func swap(s string) string {
	b := []byte(s)
	for i := 0; i+1 < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
	return string(b)
}

// A machine whose address cannot be chosen is told of once, beside what is
// wrong with the file.
func TestAddressOnce(t *testing.T) {
	m := machine()
	m.Routes = nil
	m.Links[1].Addrs = append(m.Links[1].Addrs, m.Links[1].Addrs[0].Masked())
	_, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(short + "kubernetesVersion: v1.20.0\npodSubnet: x\n")})
	probs, _ := asProblems(err)
	if len(probs) != 3 || strings.Count(err.Error(), "advertiseAddress") != 2 { // the field, and the remedy
		t.Errorf("%d: %v", len(probs), err)
	}
}
