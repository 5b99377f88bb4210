package firstboot

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// tree is what a cluster holds: objects by kind and name, without what differs
// from one making to the next. Text that is YAML is there as what it says;
// sealed certificates as their plain text; random tokens under one name.
type tree map[string]any

func dump(t testing.TB, c kubernetes.Interface) tree {
	t.Helper()
	all := tree{}
	each(t, c, func(kind string, o map[string]any) {
		m := o["metadata"].(map[string]any)
		for _, k := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "generation"} {
			delete(m, k)
		}
		delete(o, "status")
		name := fmt.Sprint(m["name"])
		if ns, ok := m["namespace"]; ok {
			name = fmt.Sprint(ns) + "/" + name
		}
		data, _ := o["data"].(map[string]any)
		if kind == "Secret" {
			name = normalSecret(t, o, data, name)
		}
		for k, v := range data {
			var said any
			if text, ok := v.(string); ok && strings.Contains(text, "\n") && yaml.Unmarshal([]byte(text), &said) == nil {
				data[k] = said
			}
		}
		all[kind+" "+name] = o
	})
	delete(all, "ConfigMap kube-system/extension-apiserver-authentication") // the API server's own
	return all
}

var tokenName = regexp.MustCompile(`bootstrap-token-[a-z0-9]{6}`)

func normalSecret(t testing.TB, o, data map[string]any, name string) string {
	t.Helper()
	plain := map[string]any{}
	for k, v := range data {
		var b []byte // the JSON of a Secret is base64
		j, _ := json.Marshal(v)
		if err := json.Unmarshal(j, &b); err != nil {
			t.Fatal(err)
		}
		plain[k] = string(b)
	}
	switch {
	case plain["description"] == "Proxy for managing TTL for the kubeadm-certs secret":
		for _, k := range []string{"token-id", "token-secret"} {
			plain[k] = "random"
		}
		name = tokenName.ReplaceAllString(name, "bootstrap-token-random")
		o["metadata"].(map[string]any)["name"] = "bootstrap-token-random"
	case strings.HasSuffix(name, "/kubeadm-certs"):
		sealer, err := cluster.NewSealer("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range plain {
			b, err := sealer.Open([]byte(v.(string)))
			if err != nil {
				t.Fatalf("kubeadm-certs, %s: %v", k, err)
			}
			plain[k] = string(b)
		}
		for _, ref := range o["metadata"].(map[string]any)["ownerReferences"].([]any) {
			ref := ref.(map[string]any)
			ref["name"] = tokenName.ReplaceAllString(ref["name"].(string), "bootstrap-token-random")
			delete(ref, "uid")
		}
	}
	if plain["expiration"] != nil {
		plain["expiration"] = "some time"
	}
	o["data"] = plain
	return name
}

// each calls f for all objects of the kinds that steps make.
func each(t testing.TB, c kubernetes.Interface, f func(kind string, o map[string]any)) {
	t.Helper()
	ctx, all := context.Background(), metav1.ListOptions{}
	lists := map[string]func() (runtime.Object, error){
		"Namespace":          func() (runtime.Object, error) { return c.CoreV1().Namespaces().List(ctx, all) },
		"Node":               func() (runtime.Object, error) { return c.CoreV1().Nodes().List(ctx, all) },
		"ClusterRole":        func() (runtime.Object, error) { return c.RbacV1().ClusterRoles().List(ctx, all) },
		"ClusterRoleBinding": func() (runtime.Object, error) { return c.RbacV1().ClusterRoleBindings().List(ctx, all) },
	}
	for _, ns := range []string{"kube-system", "kube-public", "kube-flannel", "shop"} {
		lists["ConfigMap "+ns] = func() (runtime.Object, error) { return c.CoreV1().ConfigMaps(ns).List(ctx, all) }
		lists["Secret "+ns] = func() (runtime.Object, error) { return c.CoreV1().Secrets(ns).List(ctx, all) }
		lists["Service "+ns] = func() (runtime.Object, error) { return c.CoreV1().Services(ns).List(ctx, all) }
		lists["ServiceAccount "+ns] = func() (runtime.Object, error) { return c.CoreV1().ServiceAccounts(ns).List(ctx, all) }
		lists["Role "+ns] = func() (runtime.Object, error) { return c.RbacV1().Roles(ns).List(ctx, all) }
		lists["RoleBinding "+ns] = func() (runtime.Object, error) { return c.RbacV1().RoleBindings(ns).List(ctx, all) }
		lists["Deployment "+ns] = func() (runtime.Object, error) { return c.AppsV1().Deployments(ns).List(ctx, all) }
		lists["DaemonSet "+ns] = func() (runtime.Object, error) { return c.AppsV1().DaemonSets(ns).List(ctx, all) }
	}
	for kind, list := range lists {
		l, err := list()
		if err != nil {
			t.Fatal(err)
		}
		u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(l)
		if err != nil {
			t.Fatal(err)
		}
		items, _ := u["items"].([]any)
		for _, o := range items {
			kind, _, _ := strings.Cut(kind, " ")
			f(kind, o.(map[string]any))
		}
	}
}

// wipe deletes all that is not in keep. Namespaces stay: their end needs a
// controller.
func wipe(t testing.TB, c kubernetes.Interface, keep tree) {
	t.Helper()
	ctx, now := context.Background(), metav1.DeleteOptions{}
	each(t, c, func(kind string, o map[string]any) {
		m := o["metadata"].(map[string]any)
		name := m["name"].(string)
		ns, _ := m["namespace"].(string)
		full := name
		if ns != "" {
			full = ns + "/" + name
		}
		if _, ok := keep[kind+" "+full]; ok {
			return
		}
		var err error
		switch kind {
		case "Node":
			err = c.CoreV1().Nodes().Delete(ctx, name, now)
		case "ClusterRole":
			err = c.RbacV1().ClusterRoles().Delete(ctx, name, now)
		case "ClusterRoleBinding":
			err = c.RbacV1().ClusterRoleBindings().Delete(ctx, name, now)
		case "ConfigMap":
			err = c.CoreV1().ConfigMaps(ns).Delete(ctx, name, now)
		case "Secret":
			err = c.CoreV1().Secrets(ns).Delete(ctx, name, now)
		case "Service":
			err = c.CoreV1().Services(ns).Delete(ctx, name, now)
		case "ServiceAccount":
			err = c.CoreV1().ServiceAccounts(ns).Delete(ctx, name, now)
		case "Role":
			err = c.RbacV1().Roles(ns).Delete(ctx, name, now)
		case "RoleBinding":
			err = c.RbacV1().RoleBindings(ns).Delete(ctx, name, now)
		case "Deployment":
			err = c.AppsV1().Deployments(ns).Delete(ctx, name, now)
		case "DaemonSet":
			err = c.AppsV1().DaemonSets(ns).Delete(ctx, name, now)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
