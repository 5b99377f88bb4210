package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
)

func TestParseManifest(t *testing.T) {
	objs, err := cluster.ParseManifest("x.yaml", []byte(`# a comment

---
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data:
  text: |
    ---not a separator
    --- neither
--- # but this is one

apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: ns}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: c}, spec: {replicas: 3}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objs {
		got = append(got, o.String())
	}
	want := "ConfigMap a (x.yaml, line 5) | Secret ns/b (x.yaml, line 14) | Deployment c (x.yaml, line 14)"
	if s := strings.Join(got, " | "); s != want {
		t.Errorf("objects are\n%s, want\n%s", s, want)
	}
	if n, ok, _ := unstructured.NestedInt64(objs[2].Object, "spec", "replicas"); !ok || n != 3 {
		t.Errorf("replicas are %v (%t), want the whole number 3", n, ok)
	}
}

func TestParseManifestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Pod\nmetadata: {name: a}":                                      "x.yaml, document at line 1: apiVersion or kind is missing",
		"apiVersion: v1\nkind: Pod":                                           "no metadata.name",
		"apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}":             "generateName",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n- one\n- two\n": "x.yaml, document at line 5: want an object",
		"a: 1\na: 2": "already set",
		"a: [":       "x.yaml, document at line 1",
	} {
		if _, err := cluster.ParseManifest("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n{}\n"))
	f.Add([]byte("---\n--- x\nkind: List\napiVersion: v1\nitems: [{}, 1]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		objs, err := cluster.ParseManifest("f", b)
		for _, o := range objs {
			if err == nil && (o.GetName() == "" || o.GetKind() == "") {
				t.Errorf("an object without name or kind: %v", o.Object)
			}
		}
	})
}

// TestApply applies a definition, an object of it, and a namespace, in the
// wrong order.
func TestApply(t *testing.T) {
	ctx := context.Background()
	var changes []string
	_, cfg := connect(t, apitest.Real(t), &changes)
	objs, err := cluster.ParseManifest("x.yaml", []byte(`apiVersion: example.com/v1
kind: Fruit
metadata: {name: apple, namespace: orchard}
colour: red
---
apiVersion: v1
kind: ConfigMap
metadata: {name: prices}
data: {apple: "1"}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fruits.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Fruit, plural: fruits, singular: fruit}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: orchard}
`))
	if err != nil {
		t.Fatal(err)
	}
	for tries := 0; ; tries++ {
		if _, err = cluster.Apply(ctx, cfg, nil, objs); err == nil {
			break
		}
		if !cluster.Temporary(err) || tries > 100 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fruits := dyn.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "fruits"}).Namespace("orchard")
	apple, err := fruits.Get(ctx, "apple", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m := apple.GetManagedFields(); apple.Object["colour"] != "red" || len(m) != 1 || m[0].Manager != "kbuild" {
		t.Errorf("the object is %v", apple.Object)
	}
	prices := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("default")
	if _, err := prices.Get(ctx, "prices", metav1.GetOptions{}); err != nil {
		t.Errorf("an object without namespace: %v", err)
	}
	if _, err := cluster.Apply(ctx, cfg, nil, objs); err != nil {
		t.Fatal(err)
	}
	again, err := fruits.Get(ctx, "apple", metav1.GetOptions{})
	if err != nil || again.GetResourceVersion() != apple.GetResourceVersion() {
		t.Errorf("applied again, the object moved from version %s to %s (%v)", apple.GetResourceVersion(), again.GetResourceVersion(), err)
	}

	unknown, err := cluster.ParseManifest("y.yaml", []byte("apiVersion: example.com/v1\nkind: Nut\nmetadata: {name: hazel}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Apply(ctx, cfg, nil, unknown); !cluster.Temporary(err) || !strings.Contains(err.Error(), "Nut hazel (y.yaml, line 1)") {
		t.Errorf("a kind that is not served: %v, temporary %t", err, cluster.Temporary(err))
	}
	invalid, err := cluster.ParseManifest("z.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Apply(ctx, cfg, nil, invalid); err == nil || cluster.Temporary(err) || errors.Is(err, context.Canceled) {
		t.Errorf("an invalid object: %v, temporary %t", err, cluster.Temporary(err))
	}
}
