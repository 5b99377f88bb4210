package cluster

import (
	"context"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// ApplyInOrder applies and records the parts that are missing one after
// another. One that cannot be applied yet does not hold up the others: they may
// bring what it waits for, such as the definition of its kind.
func ApplyInOrder(ctx context.Context, c kubernetes.Interface, parts []Part) error {
	todo, err := Missing(ctx, c, parts)
	if err != nil {
		return err
	}
	var waiting error
	for _, p := range todo {
		err := p.Put(ctx, c)
		if err != nil && !Temporary(err) {
			return err
		}
		if waiting == nil {
			waiting = err
		}
	}
	return waiting
}

// Part is a share of what a step puts into the cluster. It is applied once for
// each content that an image and a node's configuration ask for, and then left
// to the cluster's administrators: see cluster.Applied.
type Part struct {
	Name  string // "addon.coredns"
	Wants any    // all that it depends on; its digest is what is recorded
	Apply func(ctx context.Context) error
}

// ObjectsPart is a part that holds objects: early ones side by side, then the
// last ones.
func ObjectsPart(c kubernetes.Interface, name string, early, last []runtime.Object) Part {
	return Part{Name: name, Wants: []any{early, last}, Apply: func(ctx context.Context) error {
		if err := EnsureAll(ctx, c, early...); err != nil {
			return err
		}
		return EnsureAll(ctx, c, last...)
	}}
}

// Missing returns the parts that are not applied with what they want now.
func Missing(ctx context.Context, c kubernetes.Interface, parts []Part) ([]Part, error) {
	have, err := Applied(ctx, c)
	if err != nil {
		return nil, err
	}
	var todo []Part
	for _, p := range parts {
		digest, err := Digest(p.Wants)
		if err != nil {
			return nil, err
		}
		if have[p.Name] != digest {
			todo = append(todo, p)
		}
	}
	return todo, nil
}

// ApplyMissing applies the parts that are missing, side by side, and records
// each when it is whole.
func ApplyMissing(ctx context.Context, c kubernetes.Interface, parts []Part) error {
	todo, err := Missing(ctx, c, parts)
	if err != nil {
		return err
	}
	var g errgroup.Group // one that fails lets the others end: they are needed too
	for _, p := range todo {
		g.Go(func() error { return p.Put(ctx, c) })
	}
	return g.Wait()
}

// Put applies a part and notes that it did.
func (p Part) Put(ctx context.Context, c kubernetes.Interface) error {
	digest, err := Digest(p.Wants)
	if err != nil {
		return err
	}
	if err := p.Apply(ctx); err != nil {
		return err
	}
	return Record(ctx, c, p.Name, digest)
}
