package config

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// The golden files of testdata/kubeadm hold what real kubeadm writes into its
// ConfigMaps for the configuration beside them. They are made by
//
//	KUBEADM=/path/to/kubeadm-v1.19.12 KUBEADM_VERSION=v1.19.12 go test ./firstboot/config -run TestAsKubeadm
//
// as root, in a mount namespace of its own (kubeadm init --dry-run).
func TestAsKubeadm(t *testing.T) {
	inputs, err := filepath.Glob("testdata/kubeadm/*.yaml")
	if err != nil || len(inputs) < 7 {
		t.Fatalf("inputs: %v %v", inputs, err)
	}
	for _, version := range []string{"v1.19.12", "v1.20.15"} {
		for _, in := range inputs {
			name := strings.TrimSuffix(filepath.Base(in), ".yaml")
			t.Run(version+"/"+name, func(t *testing.T) {
				golden := filepath.Join("testdata/kubeadm", name+"."+version+".golden")
				if k := os.Getenv("KUBEADM"); k != "" && os.Getenv("KUBEADM_VERSION") == version {
					if err := os.WriteFile(golden, dryRun(t, k, version, in), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if got := ours(t, version, in); !bytes.Equal(got, want) {
					t.Errorf("%s: kbuild writes\n%s\nkubeadm writes\n%s", in, got, want)
				}
			})
		}
	}
}

// ours is what kbuild writes, but for the kubelet's cgroup driver: kbuild sets
// the one of its images, kubeadm of these versions sets none.
func ours(t *testing.T, version, in string) []byte {
	t.Helper()
	data, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	rel := release(t, version)
	n, err := Parse(images.Baked{Release: rel, CNI: "none"}, Document{Source: in, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := Default(n, images.Baked{Release: rel, CNI: "none"}, machine()); err != nil {
		t.Fatal(err)
	}
	if n.Kubelet["cgroupDriver"] != "systemd" {
		t.Errorf("cgroupDriver = %v", n.Kubelet["cgroupDriver"])
	}
	delete(n.Kubelet, "cgroupDriver")
	var out bytes.Buffer
	write := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "# %s\n%s", name, b)
	}
	b, err := MarshalCluster(n, rel)
	write("ClusterConfiguration", b, err)
	b, err = MarshalClusterStatus(map[string]APIEndpoint{n.Init.NodeRegistration.Name: n.Init.LocalAPIEndpoint}, rel)
	write("ClusterStatus", b, err)
	b, err = MarshalKubelet(n, rel)
	write("kubelet", b, err)
	b, err = MarshalKubeProxy(n, rel)
	write("config.conf", b, err)
	return out.Bytes()
}

// dryRun is what kubeadm writes.
func dryRun(t *testing.T, kubeadm, version, in string) []byte {
	t.Helper()
	data, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	// kubeadm would ask the network for the newest version.
	text := strings.Replace(string(data), "kind: ClusterConfiguration\n", "kind: ClusterConfiguration\nkubernetesVersion: "+version+"\n", 1)
	if text == string(data) {
		text += "---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: " + version + "\n"
	}
	dir := t.TempDir()
	cfg := filepath.Join(dir, "kubeadm.yaml")
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mkdir -p "$2/etc" "$2/kubelet" /etc/kubernetes /var/lib/kubelet
mount --bind "$2/etc" /etc/kubernetes; mount --bind "$2/kubelet" /var/lib/kubelet
exec "$0" init --dry-run --config "$1" --ignore-preflight-errors=all --skip-phases=preflight`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, kubeadm, cfg, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("kubeadm: %v\n%s", err, out)
	}
	var got bytes.Buffer
	for _, name := range []string{"ClusterConfiguration", "ClusterStatus", "kubelet", "config.conf"} {
		_, rest, ok := strings.Cut(string(out), "\n\t  "+name+": |-\n")
		if !ok {
			_, rest, ok = strings.Cut(string(out), "\n\t  "+name+": |\n")
		}
		if !ok {
			t.Fatalf("kubeadm shows no %s", name)
		}
		fmt.Fprintf(&got, "# %s\n", name)
		for _, line := range strings.Split(rest, "\n") {
			line, ok := strings.CutPrefix(line, "\t    ")
			if !ok {
				break
			}
			got.WriteString(line + "\n")
		}
	}
	return got.Bytes()
}

func release(t testing.TB, version string) images.Release {
	t.Helper()
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
