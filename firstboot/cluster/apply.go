package cluster

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
func Apply(ctx context.Context, cfg *rest.Config, objs []Object) error {
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	dc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return err
	}
	kinds := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(dc))
	for _, o := range inOrder(objs) {
		if err := applyOne(ctx, dyn, kinds, o); err != nil {
			return fmt.Errorf("cannot apply %s: %w", o, err)
		}
	}
	return nil
}

func applyOne(ctx context.Context, dyn dynamic.Interface, kinds *restmapper.DeferredDiscoveryRESTMapper, o Object) error {
	gvk := o.GroupVersionKind()
	// The mapper asks the server again by itself when it does not know a kind.
	m, err := kinds.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	obj := o.DeepCopy()
	opts := metav1.ApplyOptions{FieldManager: Manager, Force: true}
	if m.Scope.Name() != meta.RESTScopeNameNamespace {
		_, err = dyn.Resource(m.Resource).Apply(ctx, obj.GetName(), obj, opts)
		return err
	}
	if obj.GetNamespace() == "" {
		obj.SetNamespace(metav1.NamespaceDefault)
	}
	_, err = dyn.Resource(m.Resource).Namespace(obj.GetNamespace()).Apply(ctx, obj.GetName(), obj, opts)
	return err
}
