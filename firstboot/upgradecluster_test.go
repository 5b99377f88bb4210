package firstboot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/upgrade"
	"github.com/kbuild/kbuild/images"
)

// TestEditsCluster: while a cluster moves to another version its newer control
// planes lead.
func TestEditsCluster(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		cluster string // the version that it keeps; empty is none
		other   string // version of another control plane's API server
		role    config.Role
		want    bool
	}{
		"first boot":                         {"", "", config.RoleInit, true},
		"a boot like any other":              {"v1.19.12", "", config.RoleInit, true},
		"a boot like any other, joined":      {"v1.19.12", "", config.RoleControlPlane, false},
		"joins a new cluster":                {"", "", config.RoleControlPlane, false},
		"first of its version":               {"v1.19.11", "v1.19.11", config.RoleInit, true},
		"first of its version, joined":       {"v1.19.11", "v1.19.11", config.RoleControlPlane, true},
		"others are newer":                   {"v1.20.15", "v1.20.15", config.RoleInit, false},
		"others are newer, joined":           {"v1.20.15", "v1.20.15", config.RoleControlPlane, false},
		"it has fallen back, alone":          {"v1.20.15", "", config.RoleInit, true},
		"it has fallen back, others are old": {"v1.20.15", "v1.19.12", config.RoleInit, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := apitest.Memory(t)
			m := clusterRun(t, s, testUserdata)
			m.Node.Role = c.role
			admin := s.Client(t)
			if c.cluster != "" {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: node.KubeadmConfig, Namespace: metav1.NamespaceSystem},
					Data: map[string]string{"ClusterConfiguration": "kubernetesVersion: " + c.cluster + "\n"}}
				if _, err := admin.CoreV1().ConfigMaps(cm.Namespace).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if c.other != "" {
				makePod(t, admin, "kube-apiserver-other", "other", "k8s.gcr.io/kube-apiserver:"+c.other, "")
			}
			if got, err := leadsCluster(ctx, m); got != c.want || err != nil {
				t.Errorf("%t, %v, want %t", got, err, c.want)
			}
		})
	}
}

func makePod(t *testing.T, c kubernetes.Interface, name, node, image, owner string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem, UID: "1",
		Labels: map[string]string{"component": "kube-apiserver", "tier": "control-plane"},
	},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: image}}}}
	if owner != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "o", UID: "2", APIVersion: "apps/v1", Controller: &yes}}
	}
	if _, err := c.CoreV1().Pods(p.Namespace).Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestStalePods removes what only the other slot can run, and nothing else.
func TestStalePods(t *testing.T) {
	ctx := context.Background()
	s := apitest.Memory(t)
	m := clusterRun(t, s, testUserdata)
	m.Baked.Images = []string{"k8s.gcr.io/kube-proxy:v1.20.15", "k8s.gcr.io/coredns:1.7.0"}
	// This boot begins after the pods were made.
	boot := time.Now().Add(time.Hour)
	if err := errors.Join(m.Host.WriteFile(node.HostsFile, []byte("x"), 0o644), os.Chtimes(m.Host.Path(node.HostsFile), boot, boot)); err != nil {
		t.Fatal(err)
	}
	c := s.Client(t)
	makePod(t, c, "stale", "node-1", "k8s.gcr.io/kube-proxy:v1.19.12", "DaemonSet")
	makePod(t, c, "of-this-image", "node-1", "k8s.gcr.io/coredns:1.7.0", "ReplicaSet")
	makePod(t, c, "somebody-elses", "node-1", "example.com/shop:v1", "ReplicaSet")
	makePod(t, c, "static", "node-1", "k8s.gcr.io/kube-proxy:v1.19.12", "Node")
	makePod(t, c, "nobodys", "node-1", "k8s.gcr.io/kube-proxy:v1.19.12", "")
	if err := runSteps(ctx, m, upgrade.StalePodsStep()); err != nil {
		t.Fatal(err)
	}
	list, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 4 {
		t.Errorf("%d pods are left, want 4", len(list.Items))
	}
	for _, p := range list.Items {
		if p.Name == "stale" {
			t.Error("the stale pod is there")
		}
	}
}

// TestUncordon: at a boot a node is uncordoned that was cordoned for a swap in a
// boot before, and no other; after a time one that was cordoned in this boot.
// What was cordoned by somebody else already stays so.
func TestUncordon(t *testing.T) {
	ctx := context.Background()
	step := func(m *node.Machine) error { return runSteps(ctx, m, upgrade.UncordonStep()) }
	after := func(m *node.Machine) error {
		if err := m.Freeze(m.Node); err != nil {
			t.Fatal(err)
		}
		stopped, stop := context.WithCancel(ctx)
		stop()
		if err := upgrade.Uncordon(stopped, m, time.Hour); err != context.Canceled {
			t.Errorf("stopped before the time has passed: %v", err)
		}
		return upgrade.Uncordon(ctx, m, time.Millisecond)
	}
	mark, stays := cluster.CordonedAnnotation, cluster.StaysCordonedAnnotation
	for name, x := range map[string]struct {
		annotations      map[string]string
		do               func(*node.Machine) error
		cordoned, marked bool // afterwards
	}{
		"for a swap":                          {map[string]string{mark: "boot-1"}, step, false, false},
		"in this boot":                        {map[string]string{mark: "boot-2"}, step, true, true},
		"by somebody else":                    {nil, step, true, false},
		"by somebody else and then":           {map[string]string{mark: "boot-1", stays: "true"}, step, true, false},
		"in this boot, long ago":              {map[string]string{mark: "boot-2"}, after, false, false},
		"in a boot before, long ago":          {map[string]string{mark: "boot-1"}, after, true, true},
		"by somebody else, long ago":          {nil, after, true, false},
		"by somebody else and then, long ago": {map[string]string{mark: "boot-2", stays: "true"}, after, true, false},
	} {
		s := apitest.Memory(t)
		r, c := clusterRun(t, s, testUserdata), s.Client(t)
		registerNode(t, c)
		n, err := c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n.Spec.Unschedulable = true
		maps.Copy(n.Annotations, x.annotations)
		if err := r.Host.WriteFile(host.BootIDFile, []byte("boot-2\n"), 0o444); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := x.do(r); err != nil {
			t.Fatal(err)
		}
		if n, err = c.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		_, marked := n.Annotations[mark]
		if _, still := n.Annotations[stays]; n.Spec.Unschedulable != x.cordoned || marked != x.marked || still && !marked || n.Annotations["kept"] != "yes" {
			t.Errorf("cordoned %s: unschedulable %t, annotations %v", name, n.Spec.Unschedulable, n.Annotations)
		}
	}
}

// TestUpgradeCluster: a joined control plane that is the first of its version
// makes the cluster that version's, the administrators' words kept, and another
// one after it does nothing.
func TestUpgradeCluster(t *testing.T) {
	ctx := context.Background()
	s := apitest.Memory(t)
	r, c := clusterRun(t, s, testUserdata), s.Client(t)
	registerNode(t, c)
	if err := runSteps(ctx, r, clusterSteps()...); err != nil {
		t.Fatal(err)
	}
	cms := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := cms.Get(ctx, node.KubeadmConfig, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["ClusterConfiguration"] = strings.Replace(cm.Data["ClusterConfiguration"], "clusterName: kubernetes", "clusterName: edited", 1)
	if _, err := cms.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if r.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
		t.Fatal(err)
	}
	r.Node = r.Node.MoveTo(r.Baked)
	r.Node.Role = config.RoleControlPlane
	if err := runSteps(ctx, r, stepUpgradeCluster()); err != nil {
		t.Fatal(err)
	}
	if v, err := clusterVersion(ctx, c); err != nil || v != "v1.20.15" {
		t.Errorf("the cluster keeps version %q, %v", v, err)
	}
	if _, err := cms.Get(ctx, "kubelet-config-1.20", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if cm, err = cms.Get(ctx, node.KubeadmConfig, metav1.GetOptions{}); err != nil || !strings.Contains(cm.Data["ClusterConfiguration"], "clusterName: edited") {
		t.Errorf("%v\n%s", err, cm.Data["ClusterConfiguration"])
	}
	ds, err := c.AppsV1().DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{})
	if err != nil || ds.Spec.Template.Spec.Containers[0].Image != "k8s.gcr.io/kube-proxy:v1.20.15" {
		t.Errorf("kube-proxy: %v %v", ds.Spec.Template.Spec.Containers, err)
	}
	r.Host.Effect = func(what string) error { t.Errorf("a further boot changes %s", what); return nil }
	if err := runSteps(ctx, r, stepUpgradeCluster()); err != nil {
		t.Error(err)
	}
}

// TestAddonDisabled: an add-on that the configuration disables is not installed,
// and one that is there when it becomes disabled stays as it is, as with kubeadm.
func TestAddonDisabled(t *testing.T) {
	ctx := context.Background()
	for _, x := range []struct {
		dns, proxy bool // before the upgrade, and after it both are disabled
	}{{true, false}, {false, true}, {true, true}} {
		s := apitest.Memory(t)
		m, c := clusterRun(t, s, testUserdata), s.Client(t)
		registerNode(t, c)
		look := func(when string) {
			t.Helper()
			dns, err1 := c.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{})
			proxy, err2 := c.AppsV1().DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{})
			if x.dns != apierrors.IsNotFound(err1) || !x.dns && len(dns.Spec.Template.Spec.Tolerations) != 2 {
				t.Errorf("%s, with %+v: CoreDNS: %v, %v", when, x, dns, err1)
			}
			if x.proxy != apierrors.IsNotFound(err2) || !x.proxy && proxy.Spec.Template.Spec.Containers[0].Image != "k8s.gcr.io/kube-proxy:v1.19.12" {
				t.Errorf("%s, with %+v: kube-proxy: %v, %v", when, x, proxy, err2)
			}
		}
		m.Node.Cluster.DNS.Disabled, m.Node.Cluster.Proxy.Disabled = x.dns, x.proxy
		if err := runSteps(ctx, m, clusterSteps()...); err != nil {
			t.Fatal(err)
		}
		look("first boot")
		var err error
		if m.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
			t.Fatal(err)
		}
		m.Node = m.Node.MoveTo(m.Baked)
		m.Node.Role, m.Node.Cluster.DNS.Disabled, m.Node.Cluster.Proxy.Disabled = config.RoleControlPlane, true, true
		if err := runSteps(ctx, m, stepUpgradeCluster()); err != nil {
			t.Fatal(err)
		}
		look("upgrade")
	}
}

// TestUpgradeKubeadmCluster: in a cluster that kubeadm has made, and of which no
// image has recorded anything, a joined control plane leaves off the add-ons that
// the cluster does without, and keeps the configurations that were edited.
func TestUpgradeKubeadmCluster(t *testing.T) {
	ctx := context.Background()
	s := apitest.Memory(t)
	r, c := clusterRun(t, s, testUserdata), s.Client(t)
	var said bytes.Buffer
	r.Host.Log = slog.New(slog.NewTextHandler(&said, nil))
	cms := c.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	make := func(name, key, text string) {
		t.Helper()
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem}, Data: map[string]string{key: text}}
		if _, err := cms.Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := config.MarshalCluster(r.Node, r.Baked.Release)
	if err != nil {
		t.Fatal(err)
	}
	make(node.KubeadmConfig, "ClusterConfiguration", string(conf))
	make("kubelet-config-1.19", "kubelet", "edited")
	if r.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
		t.Fatal(err)
	}
	r.Node = r.Node.MoveTo(r.Baked)
	r.Node.Role = config.RoleControlPlane
	upgrade := func() {
		t.Helper()
		if err := runSteps(ctx, r, stepUpgradeCluster()); err != nil {
			t.Fatal(err)
		}
	}
	upgrade()
	if v, err := clusterVersion(ctx, c); err != nil || v != "v1.20.15" {
		t.Errorf("the cluster keeps version %q, %v", v, err)
	}
	kubelet, err := cms.Get(ctx, "kubelet-config-1.20", metav1.GetOptions{})
	if err != nil || kubelet.Data["kubelet"] != "edited" || signed(kubelet) {
		t.Errorf("the kubelets' configuration: %v, %v", kubelet, err)
	}
	apps := c.AppsV1()
	if _, err := apps.DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("kube-proxy: %v", err)
	}
	if _, err := apps.Deployments(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("CoreDNS: %v", err)
	}
	for _, want := range []string{"addon.kube-proxy is left off", "addon.coredns is left off", "kubelet-config-1.19 was edited"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, said.String())
		}
	}

	make("kube-proxy", "config.conf", "edited")
	make("coredns", "Corefile", "edited")
	cm, err := cms.Get(ctx, node.KubeadmConfig, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["ClusterConfiguration"] = string(conf) // once more from the old version
	if _, err := cms.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	upgrade()
	ds, err := apps.DaemonSets(metav1.NamespaceSystem).Get(ctx, "kube-proxy", metav1.GetOptions{})
	if err != nil || ds.Spec.Template.Spec.Containers[0].Image != "k8s.gcr.io/kube-proxy:v1.20.15" {
		t.Errorf("kube-proxy: %v %v", ds, err)
	}
	for name, key := range map[string]string{"kube-proxy": "config.conf", "coredns": "Corefile"} {
		if cm, err := cms.Get(ctx, name, metav1.GetOptions{}); err != nil || cm.Data[key] != "edited" {
			t.Errorf("ConfigMap %s: %v, %v", name, cm, err)
		}
	}
}
