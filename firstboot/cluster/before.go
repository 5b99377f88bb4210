package cluster

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// Before is what an earlier image applied of a part: each object, decoded JSON,
// by its kind, namespace and name. Nil means that no image has applied the part,
// or that it did not say what.
type Before map[string]map[string]any

// of finds the object that want was; ours says whether it was applied at all.
func (b Before) of(want runtime.Object) (was map[string]any, ours bool) {
	was, ours = b[keyOf(want)]
	return was, ours
}

// Objects are those of type T among what was applied, in the order of their
// names.
func Objects[T any](b Before) (found []T) {
	var want any = new(T)
	for _, key := range slices.Sorted(maps.Keys(b)) {
		o := new(T)
		if kind, _ := b[key]["kind"].(string); kind == gvkOf(want.(runtime.Object)).Kind && runtime.DefaultUnstructuredConverter.FromUnstructured(b[key], o) == nil {
			found = append(found, *o)
		}
	}
	return found
}

// mergeObject is have with what want changes of was; o is what it is about. An
// object that no image of ours has made stays as it is.
func mergeObject(o runtime.Object, was map[string]any, ours bool, want, have map[string]any) (next map[string]any, theirs []string) {
	if !ours {
		if !holds(have, want) {
			theirs = []string{described(o) + " was there before, and stays as it is"}
		}
		return have, theirs
	}
	m, fields := merge3("", was, want, have)
	if len(fields) > 0 {
		theirs = []string{fmt.Sprintf("%s was edited, and keeps its %s", described(o), strings.Join(fields, ", "))}
	}
	return m.(map[string]any), theirs
}

func removed(o runtime.Object) string { return described(o) + " was removed, and stays so" }

// objectsOf are objects as Before keeps them.
func objectsOf(objs []runtime.Object) (b Before, err error) {
	for _, o := range objs {
		u, err := unstructuredOf(o)
		if err != nil {
			return nil, fmt.Errorf("cannot record %s: %w", described(o), err)
		}
		if b == nil {
			b = Before{}
		}
		b[keyOf(o)] = u
	}
	return b, nil
}

// unstructuredOf is o as decoded JSON, with whole numbers as such, with its kind,
// and a Secret's text as data, as the API server keeps it.
func unstructuredOf(o runtime.Object) (map[string]any, error) {
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	u = maps.Clone(u) // an untyped object's own
	gvk := gvkOf(o)
	u["apiVersion"], u["kind"] = gvk.ToAPIVersionAndKind()
	if text := asObject(u["stringData"]); gvk.Group == "" && gvk.Kind == "Secret" && text != nil {
		data := maps.Clone(asObject(u["data"]))
		if data == nil {
			data = map[string]any{}
		}
		for k, v := range text {
			data[k] = base64.StdEncoding.EncodeToString(fmt.Append(nil, v))
		}
		u["data"] = data
		delete(u, "stringData")
	}
	return u, nil
}

// gvkOf is the kind of an object, which typed ones need not say themselves.
func gvkOf(o runtime.Object) schema.GroupVersionKind {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		if known, _, err := scheme.Scheme.ObjectKinds(o); err == nil {
			gvk = known[0]
		}
	}
	return gvk
}

// described names an object for people: "ConfigMap kube-system/kube-proxy".
func described(o runtime.Object) string { return gvkOf(o).Kind + " " + nameOf(o.(metav1.Object)) }

// keyOf tells an object from any other: "Deployment.apps kube-system/coredns".
func keyOf(o runtime.Object) string {
	return gvkOf(o).GroupKind().String() + " " + nameOf(o.(metav1.Object))
}
