package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coredns/corefile-migration/migration"
	"github.com/pmezard/go-difflib/difflib"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// Change is what an upgrade changes in one object.
type Change struct {
	Object string `json:"object"` // "Pod kube-system/etcd-cp1"
	Diff   string `json:"diff"`   // unified
}

// Diff is what an upgrade to a version changes in the control planes' static pods,
// the add-ons and the configuration that the cluster stores. The patches in a
// node's user-data are not taken into account: only the node knows them.
func (f *Fleet) Diff(ctx context.Context, c Cluster, to string) ([]Change, error) {
	next, err := images.Assume(to)
	if err != nil {
		return nil, err
	}
	old, err := images.Assume(c.Version)
	if err != nil {
		return nil, err
	}
	changes := []Change{}
	add := func(object, have, want string) {
		if have == want {
			return
		}
		text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
			A: difflib.SplitLines(have), B: difflib.SplitLines(want), FromFile: object + " (" + c.Version + ")", ToFile: object + " (" + to + ")", Context: 3,
		})
		if err == nil {
			changes = append(changes, Change{object, text})
		}
	}
	r, err := f.configuration(ctx, old)
	if err != nil {
		return nil, err
	}
	moved, err := config.MoveCluster([]byte(r.kubeadm), next)
	if err != nil {
		return nil, err
	}
	add("ConfigMap kube-system/kubeadm-config", r.kubeadm, string(moved))
	for i, cp := range c.controlPlanes() {
		r.node = cp.Name
		if r.pods, err = f.staticPods(ctx, cp.Name); err != nil {
			return nil, err
		}
		was, err1 := r.configured(old)
		will, err2 := r.configured(next)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if i == 0 {
			if err := f.diffShared(ctx, r, was, will, old, next, add); err != nil {
				return nil, err
			}
		}
		shapes := r.staticPods(was, old)
		for _, want := range r.staticPods(will, next) {
			have := r.pods[want.Name]
			if have == nil {
				continue
			}
			j := slices.IndexFunc(shapes, func(p *corev1.Pod) bool { return p.Name == want.Name })
			shape := shapes[j].DeepCopy()
			want.Name, shape.Name = have.Name, have.Name
			a, b, err := asText(have, shape, want)
			if err != nil {
				return nil, err
			}
			add("Pod kube-system/"+have.Name, a, b)
		}
	}
	return changes, nil
}

// diffShared compares the objects of the cluster, not of a node.
func (f *Fleet) diffShared(ctx context.Context, r running, was, will *config.Node, old, next images.Release, add func(object, have, want string)) error {
	kubelet, err := kubeletConfig(will, next)
	if err != nil {
		return err
	}
	add("ConfigMap kube-system/"+kubelet.Name, r.kubelet, kubelet.Data["kubelet"])
	shapes, err1 := addons(was, old)
	wants, err2 := addons(will, next)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, want := range wants {
		var have runtime.Object
		var err error
		kind, name := "", ""
		switch w := want.(type) {
		case *appsv1.DaemonSet:
			kind, name = "DaemonSet", w.Name
			have, err = f.Client.AppsV1().DaemonSets(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		case *appsv1.Deployment:
			kind, name = "Deployment", w.Name
			var d *appsv1.Deployment
			if d, err = f.Client.AppsV1().Deployments(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{}); err == nil {
				w.Spec.Replicas = d.Spec.Replicas // the administrators' own
			}
			have = d
		case *corev1.ConfigMap:
			kind, name = "ConfigMap", w.Name
			var cm *corev1.ConfigMap
			if cm, err = f.Client.CoreV1().ConfigMaps(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{}); err == nil {
				keepCorefile(cm, w)
			}
			have = cm
		default:
			continue // accounts and rules
		}
		if apierrors.IsNotFound(err) {
			continue // left out by skipPhases
		}
		if err != nil {
			return fmt.Errorf("cannot read %s kube-system/%s: %w", kind, name, err)
		}
		shape := want
		if i := slices.IndexFunc(shapes, func(o runtime.Object) bool { return sameObject(o, want) }); i >= 0 {
			shape = shapes[i]
		}
		a, b, err := asText(have, shape, want)
		if err != nil {
			return err
		}
		add(kind+" kube-system/"+name, a, b)
	}
	return nil
}

// sameObject says whether two objects of the add-ons are of one kind and name.
func sameObject(a, b runtime.Object) bool {
	x, err1 := meta.Accessor(a)
	y, err2 := meta.Accessor(b)
	return err1 == nil && err2 == nil && x.GetName() == y.GetName() && fmt.Sprintf("%T", a) == fmt.Sprintf("%T", b)
}

// keepCorefile leaves an administrator's Corefile as it is, but for what the new
// CoreDNS cannot read.
func keepCorefile(have, want *corev1.ConfigMap) {
	if now := have.Data["Corefile"]; now != "" && !migration.Default("", now) {
		want.Data["Corefile"] = now
	}
}

// configuration reads the configuration that the cluster stores.
func (f *Fleet) configuration(ctx context.Context, rel images.Release) (running, error) {
	var r running
	for _, m := range []struct {
		name, key string
		to        *string
	}{{"kubeadm-config", "ClusterConfiguration", &r.kubeadm}, {rel.KubeletConfigMap, "kubelet", &r.kubelet}, {"kube-proxy", "config.conf", &r.proxy}} {
		cm, err := f.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, m.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) && m.to == &r.proxy {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("cannot read ConfigMap kube-system/%s: %w", m.name, err)
		}
		*m.to = cm.Data[m.key]
	}
	return r, nil
}

// staticPods reads the mirror pods of a control plane.
func (f *Fleet) staticPods(ctx context.Context, node string) (map[string]*corev1.Pod, error) {
	list, err := f.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "tier=control-plane", FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, fmt.Errorf("cannot list the static pods of node %s: %w", node, err)
	}
	pods := map[string]*corev1.Pod{}
	for _, p := range list.Items {
		if len(p.Spec.Containers) > 0 {
			pods[p.Labels["component"]] = &p
		}
	}
	return pods, nil
}

// asText is an object as it runs and as it is wanted, as YAML. Of the one
// that runs only is shown what one of the others has, too: the rest are the API's
// defaults, and what the cluster notes on its objects.
func asText(have, shape, want runtime.Object) (string, string, error) {
	var trees [3]map[string]any
	for i, o := range []runtime.Object{have, shape, want} {
		t, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return "", "", err
		}
		delete(t, "status")
		delete(t, "apiVersion")
		delete(t, "kind")
		delete(t["metadata"].(map[string]any), "creationTimestamp")
		trees[i] = t
	}
	a, err1 := yaml.Marshal(pruned(trees[0], trees[1], trees[2]))
	b, err2 := yaml.Marshal(trees[2])
	return string(a), string(b), errors.Join(err1, err2)
}

// pruned is what of have is in one of the shapes. Elements of lists that are in
// neither stay whole.
func pruned(have any, shapes ...any) any {
	switch h := have.(type) {
	case map[string]any:
		out := map[string]any{}
		for _, k := range slices.Sorted(maps.Keys(h)) {
			var below []any
			for _, s := range shapes {
				if m, ok := s.(map[string]any); ok {
					if e, has := m[k]; has {
						below = append(below, e)
					}
				}
			}
			if len(below) > 0 {
				out[k] = pruned(h[k], below...)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(h))
		for i, e := range h {
			var below []any
			for _, s := range shapes {
				if list, ok := s.([]any); ok {
					if m := matching(list, e, i); m != nil {
						below = append(below, m)
					}
				}
			}
			if len(below) > 0 {
				e = pruned(e, below...)
			}
			out = append(out, e)
		}
		return out
	}
	return have
}

// matching is the element of a list that stands for the same thing as e, which
// is at i of another one.
func matching(list []any, e any, i int) any {
	m, ok := e.(map[string]any)
	for _, key := range []string{"mountPath", "containerPort", "name"} {
		if !ok || m[key] == nil {
			continue
		}
		at := slices.IndexFunc(list, func(o any) bool {
			other, ok := o.(map[string]any)
			return ok && other[key] == m[key]
		})
		if at >= 0 {
			return list[at]
		}
		return nil
	}
	if i < len(list) {
		return list[i]
	}
	return nil
}
