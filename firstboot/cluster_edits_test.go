package firstboot

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/images"
)

// TestClusterEditsStay changes what an administrator may change, and boots:
// nothing comes back. Then another image boots: what it wants otherwise is
// made so, and the administrator's choices stay.
func TestClusterEditsStay(t *testing.T) {
	servers(t, func(t *testing.T, start func(testing.TB) *apitest.Server) {
		ctx := context.Background()
		s := start(t)
		c := s.Client(t)
		m := clusterRun(t, s, testUserdata)
		registerNode(t, c)
		boot := func() {
			t.Helper()
			if err := runSteps(ctx, m, clusterSteps()...); err != nil {
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

		m.Baked.Release.CoreDNS.Tag = "1.7.1"
		boot()
		dns, err := c.AppsV1().Deployments(sys).Get(ctx, "coredns", metav1.GetOptions{})
		must(dns, err)
		if img := dns.Spec.Template.Spec.Containers[0].Image; img != "k8s.gcr.io/coredns:1.7.1" {
			t.Errorf("another image runs CoreDNS %s", img)
		}
		for _, d := range compare(edited, dump(t, c)) {
			if !strings.HasPrefix(d, "Deployment kube-system/coredns spec.template.spec.containers.0.image:") &&
				!strings.HasPrefix(d, "ConfigMap kube-system/kbuild-applied data.addon.coredns:") &&
				!strings.HasPrefix(d, "Secret kube-system/kbuild-applied data.addon.coredns:") {
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

// TestUpgradeKeepsEdits removes and changes what an administrator may remove and
// change, and boots another version, with another manifest: nothing comes back,
// what the version wants otherwise is made so, and the log says what was not.
// Back in the old version it is the same again. A control plane that has joined
// does as the first one does.
func TestUpgradeKeepsEdits(t *testing.T) {
	for name, steps := range map[string]func() []converge.Step{
		"first":  clusterSteps,
		"joined": func() []converge.Step { return []converge.Step{stepUpgradeCluster(), stepMarkControlPlane()} },
	} {
		t.Run(name, func(t *testing.T) {
			servers(t, func(t *testing.T, start func(testing.TB) *apitest.Server) {
				upgradeKeepsEdits(t, start(t), steps, name == "joined")
			})
		})
	}
}

func upgradeKeepsEdits(t *testing.T, s *apitest.Server, steps func() []converge.Step, joined bool) {
	ctx := context.Background()
	c, r := s.Client(t), clusterRun(t, s, testUserdata)
	var said bytes.Buffer
	r.Host.Log = slog.New(slog.NewTextHandler(&said, nil))
	registerNode(t, c)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(runSteps(ctx, r, clusterSteps()...))

	const sys, now = metav1.NamespaceSystem, types.MergePatchType
	del, patch := metav1.DeleteOptions{}, metav1.PatchOptions{}
	one := func(_ any, err error) { t.Helper(); must(err) }
	must(c.CoreV1().ConfigMaps(sys).Delete(ctx, "kube-proxy", del))
	must(c.AppsV1().DaemonSets(sys).Delete(ctx, "kube-proxy", del))
	must(c.RbacV1().ClusterRoleBindings().Delete(ctx, "kubeadm:get-nodes", del))
	one(c.RbacV1().ClusterRoleBindings().Patch(ctx, "kubeadm:kubelet-bootstrap", now, []byte(`{"subjects":null}`), patch))
	must(c.RbacV1().RoleBindings(sys).Delete(ctx, "kubeadm:nodes-kubeadm-config", del))
	one(c.AppsV1().Deployments(sys).Patch(ctx, "coredns", now, []byte(`{"metadata":{"labels":{"mine":"yes"}},"spec":{"replicas":5,"template":{"metadata":{"annotations":{"mine":"yes"}}}}}`), patch))
	one(c.CoreV1().Nodes().Patch(ctx, "node-1", now, []byte(`{"metadata":{"labels":{"node-role.kubernetes.io/master":null}},"spec":{"taints":null}}`), patch))
	one(c.CoreV1().ConfigMaps(sys).Patch(ctx, "kubelet-config-1.19", now, []byte(`{"data":{"kubelet":"mine"}}`), patch))
	one(c.CoreV1().ConfigMaps("shop").Patch(ctx, "prices", now, []byte(`{"data":{"apple":"7","mine":"yes"}}`), patch))
	edited := dump(t, c)

	release, err := images.Lookup("v1.20.15")
	must(err)
	old := *r
	r.Baked.Release = release
	r.Node = r.Node.MoveTo(r.Baked)
	if joined {
		r.Node.Role = config.RoleControlPlane
	}
	must(r.Host.WriteFile("/usr/share/kbuild/manifests/20-config.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: prices, namespace: shop}\ndata: {apple: \"2\", pear: \"3\"}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: till, namespace: shop}\nstringData: {key: x}\n"), 0o600))
	must(runSteps(ctx, r, steps()...))

	allowed := []string{
		"ConfigMap kube-system/kbuild-applied ", "Secret kube-system/kbuild-applied ", "ConfigMap kube-system/kubeadm-config ",
		"ConfigMap kube-system/kubelet-config-1.20", "Role kube-system/kubeadm:kubelet-config-1.20", "RoleBinding kube-system/kubeadm:kubelet-config-1.20",
		"Deployment kube-system/coredns spec.template.spec.tolerations", "DaemonSet kube-system/kube-flannel-ds spec.template.spec.tolerations",
		"Node node-1 metadata.labels.node-role.kubernetes.io/control-plane:", "Node node-1 metadata.annotations.kbuild.dev/marked:",
		"ConfigMap shop/prices data.pear:", "Secret shop/till: ",
	}
	for _, d := range compare(edited, dump(t, c)) {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(d, a) }) {
			t.Errorf("another version also changed %s", d)
		}
	}
	prices, err := c.CoreV1().ConfigMaps("shop").Get(ctx, "prices", metav1.GetOptions{})
	must(err)
	if prices.Data["pear"] != "3" {
		t.Errorf("what only the image changed is not changed: %v", prices.Data)
	}
	if _, err := c.CoreV1().Secrets("shop").Get(ctx, "till", metav1.GetOptions{}); err != nil {
		t.Errorf("what is new in the image: %v", err)
	}
	kubelet, err := c.CoreV1().ConfigMaps(sys).Get(ctx, "kubelet-config-1.20", metav1.GetOptions{})
	must(err)
	if kubelet.Data["kubelet"] != "mine" || kubelet.Annotations[configHash] != "" {
		t.Errorf("the kubelets' configuration is not carried on: %v %v", kubelet.Data, kubelet.Annotations)
	}
	for _, want := range []string{
		"DaemonSet kube-system/kube-proxy was removed, and stays so",
		"ConfigMap shop/prices was edited, and keeps its data.apple",
		"ConfigMap kubelet-config-1.19 was edited, and kubelet-config-1.20 carries its text on",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, said.String())
		}
	}
	if joined {
		return
	}
	r.Baked, r.Node = old.Baked, old.Node
	must(runSteps(ctx, r, steps()...))
	for _, d := range compare(edited, dump(t, c)) {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(d, a) }) {
			t.Errorf("the way back also changed %s", d)
		}
	}
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
			m := clusterRun(t, s, testUserdata)
			m.Node.Init.NodeRegistration.Taints = test.wanted
			c := s.Client(t)
			ctx := context.Background()
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{corev1.LabelHostname: "node-1"}}, Spec: corev1.NodeSpec{Taints: test.have}}
			if _, err := c.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := runSteps(ctx, m, stepMarkControlPlane()); err != nil {
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

// TestRetaint: the version's taint takes the place of another version's, and a
// configuration's that of another configuration.
func TestRetaint(t *testing.T) {
	taint := func(keys ...string) (out []corev1.Taint) {
		for _, k := range keys {
			out = append(out, corev1.Taint{Key: k, Effect: corev1.TaintEffectNoSchedule})
		}
		return out
	}
	master, plane, other := "node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane", "other"
	for name, c := range map[string]struct {
		have      []corev1.Taint
		was, want marks
		then      []corev1.Taint
	}{
		"renamed":                  {taint(master, other), marks{Taints: taint(master), Default: true}, marks{Taints: taint(plane), Default: true}, taint(plane, other)},
		"renamed, taken away":      {taint(other), marks{Taints: taint(master), Default: true}, marks{Taints: taint(plane), Default: true}, taint(other)},
		"the same, taken away":     {taint(other), marks{Taints: taint(master), Default: true}, marks{Taints: taint(master), Default: true}, taint(other)},
		"configured now":           {taint(other), marks{Taints: taint(master), Default: true}, marks{Taints: taint("own")}, taint("own", other)},
		"none now":                 {taint(master, other), marks{Taints: taint(master), Default: true}, marks{}, taint(other)},
		"configured, edited since": {taint("mine"), marks{Taints: taint("own")}, marks{Taints: taint("own", "new")}, taint("new", "mine")},
	} {
		if got := retaint(c.have, c.was, c.want, false); !slices.Equal(got, c.then) {
			t.Errorf("%s: %v, want %v", name, got, c.then)
		}
	}
}
