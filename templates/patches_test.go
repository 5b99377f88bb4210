package templates

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

func etcdPod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: Etcd, Namespace: "kube-system", Labels: map[string]string{"component": "etcd", "tier": "control-plane"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: Etcd, Image: "etcd:3", Command: []string{"etcd", "--name=node-1"}}},
			Volumes:    []corev1.Volume{{Name: "data"}},
		},
	}
}

// TestPatches applies patches of each type; want is what they make of the pod.
func TestPatches(t *testing.T) {
	for name, c := range map[string]struct {
		patches Patches
		want    func(p *corev1.Pod)
	}{
		"none":              {nil, func(*corev1.Pod) {}},
		"for another pod":   {Patches{{"kube-scheduler.yaml", []byte("spec: {hostNetwork: true}")}}, func(*corev1.Pod) {}},
		"not a patch":       {Patches{{"etcd.txt", []byte("spec: {hostNetwork: true}")}}, func(*corev1.Pod) {}},
		"empty":             {Patches{{"etcd.yaml", nil}, {"etcd+json.yaml", []byte("\n---\n\n---\n")}}, func(*corev1.Pod) {}},
		"only a comment":    {Patches{{"etcd.yaml", []byte("# nothing yet\n")}}, func(*corev1.Pod) {}},
		"strategic: merges": {Patches{{"etcd.yaml", []byte("spec: {containers: [{name: etcd, image: 'etcd:4'}, {name: side, image: 'side:1'}]}")}}, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "etcd:4"; addContainer(p, "side") }},
		"strategic: removes": {Patches{{"etcd+strategic.json", []byte(`{"spec": {"volumes": [{"name": "data", "$patch": "delete"}]}}`)}},
			func(p *corev1.Pod) { p.Spec.Volumes = nil }},
		"merge: lists are replaced": {Patches{{"etcd+merge.yaml", []byte("spec: {containers: [{name: side, image: 'side:1'}]}")}},
			func(p *corev1.Pod) { p.Spec.Containers = nil; addContainer(p, "side") }},
		"merge: null removes": {Patches{{"etcd+merge.json", []byte(`{"metadata": {"labels": {"tier": null}}}`)}},
			func(p *corev1.Pod) { delete(p.Labels, "tier") }},
		"json": {Patches{{"etcd+json.yaml", []byte("- {op: test, path: /metadata/name, value: etcd}\n- {op: add, path: /spec/containers/0/command/-, value: --debug}\n")}},
			func(p *corev1.Pod) {
				p.Spec.Containers[0].Command = append(p.Spec.Containers[0].Command, "--debug")
			}},
		"documents are applied in their order": {Patches{{"etcd.yaml", []byte("metadata: {labels: {a: one, b: one}}\n---\nmetadata: {labels: {b: two}}\n")}},
			func(p *corev1.Pod) { p.Labels["a"], p.Labels["b"] = "one", "two" }},
		"files are applied in their order": {Patches{{"etcd0+merge.yaml", []byte("metadata: {labels: {a: one}}")}, {"etcd1+json.yaml", []byte("[{op: replace, path: /metadata/labels/a, value: two}]")}},
			func(p *corev1.Pod) { p.Labels["a"] = "two" }},
	} {
		t.Run(name, func(t *testing.T) {
			given := etcdPod()
			b, err := c.patches.Manifest(given)
			if err != nil {
				t.Fatal(err)
			}
			got, want := &corev1.Pod{}, etcdPod()
			if err := yaml.UnmarshalStrict(b, got); err != nil {
				t.Fatal(err)
			}
			c.want(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(etcdPod(), given); d != "" {
				t.Errorf("the pod that was given has changed:\n%s", d)
			}
		})
	}
}

func addContainer(p *corev1.Pod, name string) {
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: name + ":1"})
}

// TestPatchesRefused: what would leave no pod is an error that names the file
// or the pod, since the kubelet would say nothing.
func TestPatchesRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"etcd.yaml", "spec: [", "cannot apply patch etcd.yaml"},
		{"etcd.yaml", "just text", "cannot apply patch etcd.yaml"},
		{"etcd.yaml", "[]", "cannot apply patch etcd.yaml"},
		{"etcd+merge.yaml", "just text", "cannot apply patch etcd+merge.yaml"},
		{"etcd+merge.yaml", "null", "cannot apply patch etcd+merge.yaml"},
		{"etcd+json.yaml", "metadata: {labels: {a: b}}", "cannot apply patch etcd+json.yaml"},
		{"etcd+json.yaml", "[{op: replace, path: /spec/none/there, value: 1}]", "cannot apply patch etcd+json.yaml"},
		{"etcd+json.yaml", "[{op: test, path: /metadata/name, value: other}]", "cannot apply patch etcd+json.yaml"},
		{"etcd+json.yaml", "[{op: add, path: /spec/containers/9, value: {}}]", "cannot apply patch etcd+json.yaml"},
		{"etcd+json.yaml", "[null]", "cannot apply patch etcd+json.yaml"},
		{"etcd+json.yaml", `[{op: replace, path: "", value: {}}]`, "cannot use the patches for etcd: the result is not a"},
		{"etcd+merge.yaml", "[]", "cannot use the patches for etcd: the result is not a"},
		{"etcd+merge.yaml", "kind: Deployment", "cannot use the patches for etcd: the result is not a"},
		{"etcd+merge.yaml", "apiVersion: null", "cannot use the patches for etcd: the result is not a"},
		{"etcd+merge.yaml", "metadata: null", "cannot use the patches for etcd: the result is not a"},
		{"etcd.yaml", "$patch: delete", "cannot use the patches for etcd: the result is not a"},
		{"etcd.yaml", "spec: {containers: null}", "cannot use the patches for etcd: the result is not a"},
		{"etcd.yaml", "spec: {containers: [{$patch: replace}]}", "cannot use the patches for etcd: the result is not a"},
		{"etcd.yaml", "spec: {containers: 5}", "cannot use the patches for etcd: the result is not a"},
		{"etcd.yaml", "spec: {hostNetwrk: true}", "cannot use the patches for etcd: the result is not a"},
	} {
		b, err := Patches{{c.name, []byte(c.text)}}.Manifest(etcdPod())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %s; made %q", c.name, c.text, err, c.want, b)
		}
	}
}

// TestPatchesCheck: what is ignored is told, and why; a wrong type is an error
// even if nothing in the file is wrong, and so is a target that this version has
// not.
func TestPatchesCheck(t *testing.T) {
	rel := func(version string) images.Release {
		r, err := images.Lookup(version)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ignored, err := Patches{{"etcd.yaml", nil}, {"README.md", nil}, {"kubelet.yaml", nil}}.Check(rel("v1.37.2"))
	if err != nil || len(ignored) != 2 || !strings.HasPrefix(ignored[0], "README.md") || !strings.HasPrefix(ignored[1], "kubelet.yaml") {
		t.Errorf("ignored %q, %v", ignored, err)
	}
	if _, err := (Patches{{"etcd+xml.yaml", nil}}).Check(rel("v1.37.2")); err == nil || !strings.Contains(err.Error(), "etcd+xml.yaml") {
		t.Errorf("error %v", err)
	}
	for target, first := range map[string]int{"kube-apiserver": 19, "kubeletconfiguration": 25, "corednsdeployment": 31, "kubeproxydaemonset": 37} {
		for _, known := range images.Known() {
			r := rel(known.Oldest)
			ignored, err := Patches{{target + "0+merge.yaml", nil}}.Check(r)
			if has := r.Minor() >= first; has != (err == nil) || len(ignored) > 0 {
				t.Errorf("%s for %s: ignored %q, %v", known.Oldest, target, ignored, err)
			}
			if err != nil && !strings.Contains(err.Error(), target+"0+merge.yaml") {
				t.Errorf("%s: the error does not name the file: %v", known.Oldest, err)
			}
		}
	}
}

// TestPatchedObject: the patches for an add-on's workload know its type.
func TestPatchedObject(t *testing.T) {
	d := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "coredns"}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "coredns", Image: "coredns:1"}, {Name: "other", Image: "other:1"}}
	p := Patches{{"etcd.yaml", []byte("a: [")}, {"corednsdeployment.yaml", []byte("spec: {replicas: 3, template: {spec: {containers: [{name: coredns, args: [-v]}]}}}")}}
	got, err := Patched(p, CoreDNSDeployment, d)
	if err != nil {
		t.Fatal(err)
	}
	want := d.DeepCopy()
	want.Spec.Replicas = new(int32(3))
	want.Spec.Template.Spec.Containers[0].Args = []string{"-v"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if same, err := Patched(p, KubeProxyDaemonSet, d); err != nil || same != d {
		t.Errorf("without a patch for it: %p, want %p (%v)", same, d, err)
	}
	if _, err := Patched(Patches{{"corednsdeployment.yaml", []byte("spec: {replics: 3}")}}, CoreDNSDeployment, d); err == nil || !strings.Contains(err.Error(), "Deployment") {
		t.Errorf("an unknown field: %v", err)
	}
}

// TestPatchedKubelet applies patches of each type to a kubelet's configuration.
func TestPatchedKubelet(t *testing.T) {
	const kind, conf = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", "clusterDNS:\n- 10.96.0.10\nevictionHard:\n  a: \"1\"\n  b: \"2\"\nmaxPods: 110\n"
	for name, c := range map[string]struct {
		patches Patches
		want    string // without kind; what an error says begins with "!"
	}{
		"none":                   {Patches{{"etcd.yaml", []byte("a: [")}}, conf},
		"strategic":              {Patches{{"kubeletconfiguration.yaml", []byte("clusterDNS: [10.0.0.1]\nevictionHard: {a: null}\nmaxPods: 5000000000")}}, "clusterDNS:\n- 10.0.0.1\nevictionHard:\n  b: \"2\"\nmaxPods: 5000000000\n"},
		"strategic with a word":  {Patches{{"kubeletconfiguration+strategic.json", []byte(`{"evictionHard": {"$patch": "replace", "c": "3"}}`)}}, "clusterDNS:\n- 10.96.0.10\nevictionHard:\n  c: \"3\"\nmaxPods: 110\n"},
		"merge, then json":       {Patches{{"kubeletconfiguration0+merge.yaml", []byte("maxPods: 7")}, {"kubeletconfiguration1+json.yaml", []byte("[{op: test, path: /maxPods, value: 7}, {op: remove, path: /evictionHard}]")}}, "clusterDNS:\n- 10.96.0.10\nmaxPods: 7\n"},
		"another kind":           {Patches{{"kubeletconfiguration.yaml", []byte("kind: Pod")}}, "!must keep"},
		"no patch":               {Patches{{"kubeletconfiguration.yaml", []byte("[]")}}, "!cannot apply patch kubeletconfiguration.yaml"},
		"the whole is taken off": {Patches{{"kubeletconfiguration.yaml", []byte("$patch: delete")}}, "!must keep"},
	} {
		got, err := c.patches.Kubelet([]byte(kind + conf))
		if says, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: error %v, want %q; made %q", name, err, says, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var is, want map[string]any
		if err := errors.Join(yaml.Unmarshal(got, &is), yaml.Unmarshal([]byte(kind+c.want), &want)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, is); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// FuzzPatches: whatever a patch holds, the outcome is a whole pod or an error.
func FuzzPatches(f *testing.F) {
	f.Add(byte(0), []byte("metadata: {labels: {a: b}}\n---\nspec: {containers: [{name: etcd, image: x}]}"))
	f.Add(byte(1), []byte("metadata: {labels: null}"))
	f.Add(byte(2), []byte(`[{"op": "move", "from": "/metadata/labels/tier", "path": "/metadata/labels/a"}]`))
	f.Add(byte(0), []byte("$patch: replace"))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		name := []string{"etcd.yaml", "etcd+merge.yaml", "etcd+json.yaml"}[kind%3]
		b, err := Patches{{name, data}}.Manifest(etcdPod())
		if err != nil {
			return
		}
		var p corev1.Pod
		if err := yaml.UnmarshalStrict(b, &p); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if p.Kind != "Pod" || len(p.Spec.Containers) == 0 {
			t.Fatalf("no pod:\n%s", b)
		}
	})
}
