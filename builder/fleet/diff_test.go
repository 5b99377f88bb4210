package fleet

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// configure makes what a cluster of the old version with one control plane keeps
// and runs, as its first node makes it.
func (l *lab) configure() {
	l.t.Helper()
	old, err := images.Lookup(oldVersion)
	if err != nil {
		l.t.Fatal(err)
	}
	r := running{
		kubeadm: "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: " + oldVersion + "\ncontrolPlaneEndpoint: api.example.com\nnetworking: {podSubnet: 10.244.0.0/16}\napiServer: {extraArgs: {v: \"4\"}}\n",
		kubelet: "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\n",
		proxy:   "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n",
		node:    "cp1",
		pods: map[string]*corev1.Pod{templates.APIServer: {
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{endpointAnnotation: "192.0.2.11:6443"}},
			Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "NO_PROXY", Value: "10.0.0.0/8"}}}},
				Volumes:    []corev1.Volume{{VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/ssl/certs"}}}},
			},
		}},
	}
	n, err := r.configured(old)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx := l.t.Context()
	conf, err := config.MarshalCluster(n, old)
	l.must(conf, err)
	cm := l.configMap("kubeadm-config")
	cm.Data["ClusterConfiguration"] = string(conf)
	l.must(l.client.CoreV1().ConfigMaps("kube-system").Update(ctx, cm, metav1.UpdateOptions{}))
	kubelet, err := kubeletConfig(n, old)
	l.must(kubelet, err)
	l.must(l.client.CoreV1().ConfigMaps("kube-system").Create(ctx, kubelet, metav1.CreateOptions{}))
	for _, p := range r.staticPods(n, old) {
		p.Name, p.Spec.NodeName, p.Spec.AutomountServiceAccountToken = p.Name+"-cp1", "cp1", new(false)
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, corev1.MirrorPodAnnotationKey, "x")
		l.must(l.client.CoreV1().Pods("kube-system").Create(ctx, p, metav1.CreateOptions{}))
	}
	objs, err := addons(n, old)
	l.must(objs, err)
	for _, o := range objs {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			l.must(l.client.CoreV1().ConfigMaps("kube-system").Create(ctx, o, metav1.CreateOptions{}))
		case *appsv1.DaemonSet:
			l.must(l.client.AppsV1().DaemonSets("kube-system").Create(ctx, o, metav1.CreateOptions{}))
		case *appsv1.Deployment:
			o.Spec.Replicas = new(int32(5))
			l.must(l.client.AppsV1().Deployments("kube-system").Create(ctx, o, metav1.CreateOptions{}))
		}
	}
}

func (l *lab) configMap(name string) *corev1.ConfigMap {
	l.t.Helper()
	cm, err := l.client.CoreV1().ConfigMaps("kube-system").Get(l.t.Context(), name, metav1.GetOptions{})
	l.must(cm, err)
	return cm
}

// TestDiff: of a cluster that a real API server keeps, with all its defaults,
// nothing differs from its own version, and what differs from the next is what
// that changes.
func TestDiff(t *testing.T) {
	l := newLab(t, 0, 0)
	l.must(l.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "cp1", Labels: map[string]string{"node-role.kubernetes.io/master": ""}},
	}, metav1.CreateOptions{}))
	l.configure()
	f, _ := l.fleet("a")
	c, err := f.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same, err := f.Diff(t.Context(), c, oldVersion)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range same {
		t.Errorf("of its own version %s differs:\n%s", d.Object, d.Diff)
	}
	changes, err := f.Diff(t.Context(), c, newVersion)
	if err != nil {
		t.Fatal(err)
	}
	of := func(object string) string {
		i := slices.IndexFunc(changes, func(c Change) bool { return c.Object == object })
		if i < 0 {
			t.Errorf("%s does not differ", object)
			return ""
		}
		return changes[i].Diff
	}
	for object, want := range map[string][]string{
		"ConfigMap kube-system/kubeadm-config": {"-kubernetesVersion: v1.19.12\n+kubernetesVersion: v1.20.15\n"},
		"Pod kube-system/kube-apiserver-cp1":   {"-    image: k8s.gcr.io/kube-apiserver:v1.19.12", "+    image: k8s.gcr.io/kube-apiserver:v1.20.15", "+    - --service-account-issuer=https://kubernetes.default.svc.cluster.local"},
		"Pod kube-system/etcd-cp1":             {"+      requests:", "+        memory: 100Mi"},
		"DaemonSet kube-system/kube-proxy":     {"+        image: k8s.gcr.io/kube-proxy:v1.20.15"},
	} {
		for _, w := range want {
			if d := of(object); !strings.Contains(d, w) {
				t.Errorf("%s: no %q in\n%s", object, w, d)
			}
		}
	}
	for _, d := range changes {
		t.Logf("%s", d.Diff)
		if strings.Contains(d.Diff, "replicas") || strings.Contains(d.Diff, "maxPods: 110") {
			t.Errorf("what is the administrators' own changes:\n%s", d.Diff)
		}
	}
}

func TestPruned(t *testing.T) {
	have := map[string]any{"a": "1", "default": "x", "list": []any{map[string]any{"name": "one", "v": "1", "default": "x"}, map[string]any{"name": "extra", "v": "2"}}}
	want := map[string]any{"a": "2", "list": []any{map[string]any{"name": "zero"}, map[string]any{"name": "one", "v": "3"}}}
	got := pruned(have, want).(map[string]any)
	list := got["list"].([]any)
	if got["a"] != "1" || got["default"] != nil || list[0].(map[string]any)["default"] != nil || list[0].(map[string]any)["v"] != "1" || list[1].(map[string]any)["v"] != "2" {
		t.Errorf("%v", got)
	}
}
