package firstboot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// TestManifestsGolden holds the static pods of some of the oracle's
// configurations, so that a change shows where there is no kubeadm to judge
// it. `make golden` writes them anew.
func TestManifestsGolden(t *testing.T) {
	for _, c := range []struct{ name, version string }{
		{"default", "v1.19.12"}, {"default", "v1.20.15"}, {"dual-stack-ipv6-first", "v1.19.12"},
		{"external-etcd", "v1.19.12"}, {"extra-args", "v1.19.12"}, {"extra-volumes", "v1.20.15"}, {"patches", "v1.19.12"},
	} {
		t.Run(c.name+" "+c.version, func(t *testing.T) {
			doc, err := os.ReadFile("testdata/oracle/" + c.name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			m := initMachine(t)
			m.Baked = oracleBaked(t, c.version)
			oracleDirs(t, m.Host.Path("/"))
			setup := oracleCases()[c.name]
			if setup.patches != "" {
				oraclePatches(t, m.Host.Path("/"), setup.patches)
			}
			m.Node = oracleNode(t, m.Baked, []byte(strings.ReplaceAll(string(doc), "VERSION", c.version)), setup)
			if err := runSteps(context.Background(), m, stepEtcd(), stepControlPlane()); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
				b, err := m.Host.ReadFile(node.ManifestPath(name))
				if err != nil && (name != "etcd" || m.Node.Cluster.Etcd.External == nil) {
					t.Fatal(err)
				}
				got.WriteString("--- # " + name + "\n" + string(b))
			}
			golden.Compare(t, filepath.Join("testdata/manifests", c.name+"."+c.version+".golden"), got.String())
		})
	}
}

// TestPatchTrouble: a patch that cannot be applied is an error that names its
// file, and no manifest is written.
func TestPatchTrouble(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"not YAML":     {"etcd.yaml", "a: [", "etcd.yaml"},
		"no pod":       {"etcd.yaml", "spec: {hostNetwrk: true}", "hostNetwrk"},
		"wrong path":   {"etcd+json.yaml", "[{op: replace, path: /spec/nothing/there, value: 1}]", "etcd+json.yaml"},
		"unknown type": {"etcd+xml.yaml", "a: b", "strategic, merge or json"},
	} {
		t.Run(name, func(t *testing.T) {
			m := initMachine(t)
			m.Node.Init.Patches = "/usr/share/patches"
			if err := m.Host.WriteFile("/usr/share/patches/"+c.file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, s := range []converge.Step{stepEtcd(), stepControlPlane()} {
				err := runSteps(context.Background(), m, s)
				if s.Name == "control-plane" && name != "unknown type" {
					if err != nil {
						t.Errorf("%s: a patch for another pod: %v", s.Name, err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: error %v, want %q in it", s.Name, err, c.want)
				}
			}
			if m.Host.Exists(node.ManifestPath("etcd")) {
				t.Error("a manifest was written")
			}
		})
	}
	m := initMachine(t)
	m.Node.Init.Patches = "/usr/share/patches"
	if err := runSteps(context.Background(), m, stepEtcd()); err == nil || !strings.Contains(err.Error(), "/usr/share/patches") {
		t.Errorf("no directory: %v", err)
	}
}

// TestPatchAddon: the user's patches change the workloads of kubeadm's add-ons.
func TestPatchAddon(t *testing.T) {
	m := initMachine(t)
	m.Baked = oracleBaked(t, "v1.37.2")
	objs := func() []runtime.Object {
		return []runtime.Object{&corev1.ConfigMap{}, &appsv1.Deployment{}, &appsv1.DaemonSet{}}
	}
	if changed, err := patchAddon(m, templates.CoreDNS, objs()); changed || err != nil {
		t.Errorf("without patches: %t, %v", changed, err)
	}
	m.Node.Init.Patches = "/usr/share/patches"
	for name, text := range map[string]string{"corednsdeployment.yaml": "spec: {replicas: 5}", "kubeproxydaemonset.yaml": "spec: {minReadySeconds: 7}"} {
		if err := m.Host.WriteFile("/usr/share/patches/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for addon, want := range map[templates.Addon]string{templates.CoreDNS: "5 0", templates.KubeProxy: "- 7", templates.Flannel: "- 0"} {
		objs := objs()
		changed, err := patchAddon(m, addon, objs)
		if err != nil || changed != (addon != templates.Flannel) {
			t.Errorf("%s: changed %t, %v", addon, changed, err)
		}
		replicas := "-"
		if r := objs[1].(*appsv1.Deployment).Spec.Replicas; r != nil {
			replicas = fmt.Sprint(*r)
		}
		if got := fmt.Sprint(replicas, " ", objs[2].(*appsv1.DaemonSet).Spec.MinReadySeconds); got != want {
			t.Errorf("%s: %s, want %s", addon, got, want)
		}
	}
	m.Baked = oracleBaked(t, "v1.30.0")
	if _, err := patchAddon(m, templates.CoreDNS, objs()); err == nil || !strings.Contains(err.Error(), "corednsdeployment.yaml") {
		t.Errorf("a patch for what this version does not patch: %v", err)
	}
}
