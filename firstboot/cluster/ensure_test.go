package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/host"
)

// connect returns a client for s that counts the changes it announces.
func connect(t *testing.T, s *apitest.Server, changes *[]string) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "admin.conf"), s.AdminConf, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	h := &host.Host{Root: root, Log: slog.New(slog.DiscardHandler), Effect: func(what string) error {
		if changes == nil {
			return errors.New("the world stopped")
		}
		*changes = append(*changes, what)
		return nil
	}}
	c, cfg, err := cluster.Connect(h, "/admin.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c, cfg
}

func onBoth(t *testing.T, test func(t *testing.T, s *apitest.Server)) {
	t.Run("memory", func(t *testing.T) { test(t, apitest.Memory(t)) })
	t.Run("real", func(t *testing.T) { test(t, apitest.Real(t)) })
}

func TestEnsure(t *testing.T) {
	onBoth(t, func(t *testing.T, s *apitest.Server) {
		ctx := context.Background()
		var changes []string
		c, _ := connect(t, s, &changes)
		ensure := func(o runtime.Object) {
			t.Helper()
			changes = nil
			if err := cluster.Ensure(ctx, c, o); err != nil {
				t.Fatal(err)
			}
			changes = nil
			if err := cluster.Ensure(ctx, c, o); err != nil {
				t.Fatal(err)
			}
			for _, what := range changes {
				if !strings.HasPrefix(what, "POST ") { // the attempt to create
					t.Errorf("%T: ensured again, it did %q", o, what)
				}
			}
		}
		meta := metav1.ObjectMeta{Name: "thing", Namespace: "kube-system", Labels: map[string]string{"ours": "1"}}

		ensure(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"ours": "1"}})
		cm, err := c.CoreV1().ConfigMaps("kube-system").Get(ctx, "thing", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cm.Data["theirs"], cm.Data["ours"] = "2", "changed"
		cm.Labels["theirs"] = "2"
		if _, err := c.CoreV1().ConfigMaps("kube-system").Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		ensure(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"ours": "1"}})
		cm, err = c.CoreV1().ConfigMaps("kube-system").Get(ctx, "thing", metav1.GetOptions{})
		if err != nil || cm.Data["ours"] != "1" || cm.Data["theirs"] != "2" || cm.Labels["theirs"] != "2" || cm.Labels["ours"] != "1" {
			t.Errorf("the ConfigMap is %v, labels %v (%v)", cm.Data, cm.Labels, err)
		}

		role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
		ensure(role)
		role.Rules[0].Verbs = []string{"list"}
		ensure(role)
		got, err := c.RbacV1().Roles("kube-system").Get(ctx, "thing", metav1.GetOptions{})
		if err != nil || got.Rules[0].Verbs[0] != "list" {
			t.Errorf("the Role is %v (%v)", got.Rules, err)
		}

		// A binding's role cannot be changed in place.
		bind := func(role string) *rbacv1.RoleBinding {
			return &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
				Subjects: []rbacv1.Subject{{Kind: "Group", Name: "g"}, {Kind: "ServiceAccount", Name: "sa", Namespace: "kube-system"}}}
		}
		ensure(bind("first"))
		ensure(bind("second"))
		b, err := c.RbacV1().RoleBindings("kube-system").Get(ctx, "thing", metav1.GetOptions{})
		if err != nil || b.RoleRef.Name != "second" {
			t.Errorf("the binding is to %s (%v)", b.RoleRef.Name, err)
		}

		ensure(&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.99", Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: "UDP", TargetPort: intstr.FromInt32(53)}}}})
		moved := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.98", Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: "UDP"}}}}
		if err := cluster.Ensure(ctx, c, moved); err == nil || !strings.Contains(err.Error(), "serviceSubnet") {
			t.Errorf("a Service that moves: error %v, want one that names serviceSubnet", err)
		}
	})
}

func TestConnectAnnouncesChanges(t *testing.T) {
	c, _ := connect(t, apitest.Memory(t), nil)
	ctx := context.Background()
	if _, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("reading was stopped: %v", err)
	}
	err := cluster.Ensure(ctx, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	if err == nil || !strings.Contains(err.Error(), "the world stopped") || cluster.Temporary(err) {
		t.Errorf("writing: %v, temporary %t; want the host's error, not temporary", err, cluster.Temporary(err))
	}
	if _, err := c.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{}); err == nil {
		t.Error("the Namespace was made nevertheless")
	}
}

func TestTemporary(t *testing.T) {
	s := apitest.Memory(t)
	gone := *s
	gone.AdminConf = []byte(strings.ReplaceAll(string(s.AdminConf), s.URL, "http://127.0.0.1:1"))
	var changes []string
	c, _ := connect(t, &gone, &changes)
	_, err := cluster.Applied(context.Background(), c)
	if !cluster.Temporary(err) {
		t.Errorf("connection refused (%v) is not temporary", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c, _ = connect(t, s, &changes)
	_, err = cluster.Applied(ctx, c)
	if err == nil || cluster.Temporary(err) {
		t.Errorf("a cancelled context (%v) is temporary", err)
	}
	if cluster.Temporary(nil) {
		t.Error("no error is temporary")
	}
}
