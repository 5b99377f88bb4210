package firstboot

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
)

// TestClusterEditsStay changes what an administrator may change, and boots:
// nothing comes back. Then another image boots: what it wants otherwise is
// made so, and the administrator's choices stay.
func TestClusterEditsStay(t *testing.T) {
	servers(t, func(t *testing.T, start func(testing.TB) *apitest.Server) {
		ctx := context.Background()
		s := start(t)
		c := s.Client(t)
		r := clusterRun(t, s, testUserdata)
		registerNode(t, c)
		boot := func() {
			t.Helper()
			if err := runSteps(ctx, r, clusterSteps()...); err != nil {
				t.Fatal(err)
			}
		}
		boot()
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		gone := func(err error) { t.Helper(); must(nil, err) }
		const sys, now = metav1.NamespaceSystem, types.MergePatchType
		must(c.AppsV1().Deployments(sys).Patch(ctx, "coredns", now, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{}))
		must(c.CoreV1().ConfigMaps(sys).Patch(ctx, "coredns", now, []byte(`{"data":{"Corefile":"mine"}}`), metav1.PatchOptions{}))
		must(c.CoreV1().Nodes().Patch(ctx, "node-1", now, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}))
		gone(c.RbacV1().RoleBindings(metav1.NamespacePublic).Delete(ctx, "kubeadm:bootstrap-signer-clusterinfo", metav1.DeleteOptions{}))
		gone(c.CoreV1().Secrets(sys).Delete(ctx, "bootstrap-token-abcdef", metav1.DeleteOptions{})) // expired
		gone(c.CoreV1().Secrets(sys).Delete(ctx, "kubeadm-certs", metav1.DeleteOptions{}))
		gone(c.AppsV1().DaemonSets(sys).Delete(ctx, "kube-proxy", metav1.DeleteOptions{}))

		edited := dump(t, c)
		boot()
		if d := compare(edited, dump(t, c)); d != nil {
			t.Errorf("a reboot took back what an administrator did:\n%s", strings.Join(d, "\n"))
		}

		r.Baked.Release.CoreDNS.Tag = "1.7.1"
		boot()
		dns, err := c.AppsV1().Deployments(sys).Get(ctx, "coredns", metav1.GetOptions{})
		must(dns, err)
		if img := dns.Spec.Template.Spec.Containers[0].Image; img != "k8s.gcr.io/coredns:1.7.1" {
			t.Errorf("another image runs CoreDNS %s", img)
		}
		for _, d := range compare(edited, dump(t, c)) {
			if !strings.HasPrefix(d, "Deployment kube-system/coredns spec.template.spec.containers.0.image:") &&
				!strings.HasPrefix(d, "ConfigMap kube-system/kbuild-applied data.addon.coredns:") {
				t.Errorf("another image, with another CoreDNS, also changed %s", d)
			}
		}

		// A Node that is registered anew is marked anew.
		gone(c.CoreV1().Nodes().Delete(ctx, "node-1", metav1.DeleteOptions{}))
		registerNode(t, c)
		boot()
		n, err := c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
		must(n, err)
		want := corev1.Taint{Key: "node-role.kubernetes.io/master", Effect: corev1.TaintEffectNoSchedule}
		if !slices.Contains(n.Spec.Taints, want) {
			t.Errorf("a Node registered anew has taints %v, want %v", n.Spec.Taints, want)
		}
	})
}

// TestMarkControlPlane: taints of others stay, and `taints: []` takes a
// default taint away.
func TestMarkControlPlane(t *testing.T) {
	master := corev1.Taint{Key: "node-role.kubernetes.io/master", Effect: corev1.TaintEffectNoSchedule}
	other := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}
	own := corev1.Taint{Key: "dedicated", Value: "infra", Effect: corev1.TaintEffectNoExecute}
	for name, test := range map[string]struct {
		wanted     []corev1.Taint
		have, then []corev1.Taint
	}{
		"default":         {nil, []corev1.Taint{other}, []corev1.Taint{master, other}},
		"default, again":  {nil, []corev1.Taint{master, other}, []corev1.Taint{master, other}},
		"own":             {[]corev1.Taint{own}, []corev1.Taint{other}, []corev1.Taint{own, other}},
		"none":            {[]corev1.Taint{}, []corev1.Taint{other}, []corev1.Taint{other}},
		"none any longer": {[]corev1.Taint{}, []corev1.Taint{master, other}, []corev1.Taint{other}},
	} {
		t.Run(name, func(t *testing.T) {
			s := apitest.Memory(t)
			r := clusterRun(t, s, testUserdata)
			r.Node.Init.NodeRegistration.Taints = test.wanted
			c := s.Client(t)
			ctx := context.Background()
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{corev1.LabelHostname: "node-1"}}, Spec: corev1.NodeSpec{Taints: test.have}}
			if _, err := c.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := runSteps(ctx, r, stepMarkControlPlane()); err != nil {
				t.Fatal(err)
			}
			n, err := c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(n.Spec.Taints) != len(test.then) {
				t.Fatalf("taints are %v, want %v", n.Spec.Taints, test.then)
			}
			for i := range test.then {
				if n.Spec.Taints[i] != test.then[i] {
					t.Errorf("taints are %v, want %v", n.Spec.Taints, test.then)
				}
			}
			if v, ok := n.Labels["node-role.kubernetes.io/master"]; !ok || v != "" {
				t.Errorf("labels are %v", n.Labels)
			}
		})
	}
}
