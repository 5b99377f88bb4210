package cluster

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Apply applies objects of any kind on the server (server-side apply), as
// field manager "kbuild" and over the claims of others: namespaces first, then
// CustomResourceDefinitions, then the rest in the order given. An object
// without a namespace whose kind needs one goes to "default".
//
// A kind that the API server does not serve (yet) is a Temporary error: its
// definition may come from elsewhere.
//
// Where an earlier image has applied the same part, what people have done since
// stays, and theirs says so: see ReviseAll.
func Apply(ctx context.Context, cfg *rest.Config, before Before, objs []Object) (theirs []string, err error) {
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	dc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	kinds := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(dc))
	for _, o := range inOrder(objs) {
		t, err := applyOne(ctx, dyn, kinds, before, o)
		if err != nil {
			return nil, fmt.Errorf("cannot apply %s: %w", o, err)
		}
		theirs = append(theirs, t...)
	}
	return theirs, nil
}

func applyOne(ctx context.Context, dyn dynamic.Interface, kinds *restmapper.DeferredDiscoveryRESTMapper, before Before, o Object) ([]string, error) {
	gvk := o.GroupVersionKind()
	was, ours := before.of(o)
	// The mapper asks the server again by itself when it does not know a kind.
	m, err := kinds.RESTMapping(gvk.GroupKind(), gvk.Version)
	if ours && meta.IsNoMatchError(err) {
		return []string{removed(o)}, nil // with its definition
	} else if err != nil {
		return nil, err
	}
	obj := o.DeepCopy()
	var api dynamic.ResourceInterface = dyn.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		if obj.GetNamespace() == "" {
			obj.SetNamespace(metav1.NamespaceDefault)
		}
		api = dyn.Resource(m.Resource).Namespace(obj.GetNamespace())
	}
	if before != nil {
		have, err := api.Get(ctx, obj.GetName(), metav1.GetOptions{})
		switch {
		case err == nil:
			return reviseOne(ctx, api, was, ours, o, have)
		case !apierrors.IsNotFound(err):
			return nil, err
		case ours:
			return []string{removed(o)}, nil
		}
	}
	_, err = api.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: Manager, Force: true})
	return nil, err
}

// reviseOne changes have, which the cluster holds, by what o changes of was.
func reviseOne(ctx context.Context, api dynamic.ResourceInterface, was map[string]any, ours bool, o Object, have *unstructured.Unstructured) ([]string, error) {
	want, err := unstructuredOf(o)
	if err != nil {
		return nil, err
	}
	next, theirs := mergeObject(o, was, ours, want, have.Object)
	if equality.Semantic.DeepEqual(have.Object, next) {
		return theirs, nil
	}
	_, err = api.Update(ctx, &unstructured.Unstructured{Object: next}, metav1.UpdateOptions{FieldManager: Manager})
	return theirs, err
}
