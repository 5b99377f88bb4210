package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// parallel is how many requests are under way at once.
const parallel = 8

// EnsureAll ensures all objects, side by side and in no order.
func EnsureAll(ctx context.Context, c kubernetes.Interface, objs ...runtime.Object) error {
	_, err := ReviseAll(ctx, c, nil, objs...)
	return err
}

// Ensure creates want, or changes what is there so that it equals want in all
// that want sets. Labels, annotations and ConfigMap or Secret keys that want
// does not name stay.
func Ensure(ctx context.Context, c kubernetes.Interface, want runtime.Object) error {
	_, err := revise(ctx, c, nil, want)
	return err
}

// ReviseAll ensures all objects where before is nil. Otherwise before is what an
// earlier image applied of the same part, and what people have done since stays:
// an object that they removed is not made again, and in the others changes what
// the images want differently. theirs says what has stayed although this image
// wants it otherwise, for people.
func ReviseAll(ctx context.Context, c kubernetes.Interface, before Before, objs ...runtime.Object) (theirs []string, err error) {
	var g errgroup.Group // one that fails lets the others end: they are needed too
	g.SetLimit(parallel)
	said := make([][]string, len(objs))
	for i, o := range objs {
		g.Go(func() (err error) {
			said[i], err = revise(ctx, c, before, o)
			return err
		})
	}
	err = g.Wait()
	return slices.Concat(said...), err
}

func revise(ctx context.Context, c kubernetes.Interface, before Before, want runtime.Object) ([]string, error) {
	switch w := want.(type) {
	case *corev1.Namespace:
		return ensure(ctx, c.CoreV1().Namespaces(), before, w, keep)
	case *corev1.ServiceAccount:
		return ensure(ctx, c.CoreV1().ServiceAccounts(w.Namespace), before, w, keep)
	case *corev1.ConfigMap:
		return ensure(ctx, c.CoreV1().ConfigMaps(w.Namespace), before, w, setConfigMap)
	case *corev1.Secret:
		return ensure(ctx, c.CoreV1().Secrets(w.Namespace), before, w, setSecret)
	case *corev1.Service:
		return ensure(ctx, c.CoreV1().Services(w.Namespace), before, w, setService)
	case *rbacv1.Role:
		return ensure(ctx, c.RbacV1().Roles(w.Namespace), before, w, func(have, want *rbacv1.Role) error { have.Rules = want.Rules; return nil })
	case *rbacv1.ClusterRole:
		return ensure(ctx, c.RbacV1().ClusterRoles(), before, w, func(have, want *rbacv1.ClusterRole) error { have.Rules = want.Rules; return nil })
	case *rbacv1.RoleBinding:
		return ensure(ctx, c.RbacV1().RoleBindings(w.Namespace), before, w, setRoleBinding)
	case *rbacv1.ClusterRoleBinding:
		return ensure(ctx, c.RbacV1().ClusterRoleBindings(), before, w, setClusterRoleBinding)
	case *appsv1.Deployment:
		return ensure(ctx, c.AppsV1().Deployments(w.Namespace), before, w, setDeployment)
	case *appsv1.DaemonSet:
		return ensure(ctx, c.AppsV1().DaemonSets(w.Namespace), before, w, setDaemonSet)
	}
	return nil, fmt.Errorf("cannot ensure a %T: kind not known here", want)
}

// api is what each typed client of client-go offers.
type api[T any] interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
	Create(ctx context.Context, obj T, o metav1.CreateOptions) (T, error)
	Update(ctx context.Context, obj T, o metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// object is a pointer to one of the API's types.
type object[T any] interface {
	metav1.Object
	runtime.Object
	DeepCopy() T
}

// ensure makes one object as wanted, as far as people have left that to the
// images: see ReviseAll. set carries want's content over into have where no
// image has applied it before; errRecreate from it means that the API does not
// allow the change in place.
func ensure[T object[T]](ctx context.Context, c api[T], before Before, want T, set func(have, want T) error) (theirs []string, err error) {
	what := func(err error) ([]string, error) {
		if err == nil {
			return theirs, nil
		}
		return nil, fmt.Errorf("cannot write %T %s: %w", want, nameOf(want), err)
	}
	was, ours := before.of(want)
	var createErr error
	if !ours {
		_, err := c.Create(ctx, want.DeepCopy(), metav1.CreateOptions{FieldManager: Manager})
		switch {
		case err == nil:
			return nil, nil
		case apierrors.IsNotFound(err):
			// Its namespace: the API server makes kube-system and kube-public
			// itself, a moment after it says that it is healthy.
			return what(soonError{err})
		case apierrors.IsInvalid(err):
			// An existing Service of the same address is told so, and not as
			// "already exists"; if there is none, Get says so below.
		case !apierrors.IsAlreadyExists(err):
			return what(err)
		}
		createErr = err
	}
	have, err := c.Get(ctx, want.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && ours:
		return []string{removed(want)}, nil
	case apierrors.IsNotFound(err) && apierrors.IsInvalid(createErr):
		return what(createErr)
	case err != nil:
		return what(err)
	}
	next := have.DeepCopy()
	if before == nil {
		overlayMeta(next, want)
		err = set(next, want)
	} else if next, theirs, err = mergeTyped(was, ours, want, have); err == nil {
		err = set(have.DeepCopy(), next)
	}
	if err == errRecreate {
		if err := c.Delete(ctx, want.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return what(err)
		}
		_, err = c.Create(ctx, want.DeepCopy(), metav1.CreateOptions{FieldManager: Manager})
		return what(err)
	}
	if err != nil || equality.Semantic.DeepEqual(have, next) {
		return what(err)
	}
	_, err = c.Update(ctx, next, metav1.UpdateOptions{FieldManager: Manager})
	return what(err)
}

func overlayMeta(next, want metav1.Object) {
	next.SetLabels(merged(next.GetLabels(), want.GetLabels()))
	next.SetAnnotations(merged(next.GetAnnotations(), want.GetAnnotations()))
	if refs := want.GetOwnerReferences(); refs != nil {
		next.SetOwnerReferences(refs)
	}
}

// mergeTyped is mergeObject for one of the API's types.
func mergeTyped[T object[T]](was map[string]any, ours bool, want, have T) (next T, theirs []string, err error) {
	w, err := unstructuredOf(want)
	if err != nil {
		return next, nil, err
	}
	h, err := unstructuredOf(have)
	if err != nil {
		return next, nil, err
	}
	m, theirs := mergeObject(want, was, ours, w, h)
	next = have.DeepCopy()
	return next, theirs, runtime.DefaultUnstructuredConverter.FromUnstructured(m, next)
}

func nameOf(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// merged returns have with want's entries laid over it; nil stays nil.
func merged[V any](have, want map[string]V) map[string]V {
	if len(want) == 0 {
		return have
	}
	m := map[string]V{}
	maps.Copy(m, have)
	maps.Copy(m, want)
	return m
}
