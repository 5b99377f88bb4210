package cluster

import (
	"context"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// Part is a share of what a step puts into the cluster. It is applied once for
// each content that an image and a node's configuration ask for, and then left
// to the cluster's administrators: see Applied.
type Part struct {
	Name  string // "addon.coredns"
	Wants any    // all that it depends on; its digest is what is recorded
	// Objects are recorded, so that a later image can tell what people have
	// changed in them; nil where the part is not made of objects.
	Objects []runtime.Object
	// Apply makes it so, where an earlier image did as before says. theirs is
	// what people have done and stays, although the part wants it otherwise.
	Apply func(ctx context.Context, before Before) (theirs []string, err error)
}

// ObjectsPart is a part that holds objects: early ones side by side, then the
// last ones.
func ObjectsPart(c kubernetes.Interface, name string, early, last []runtime.Object) Part {
	return Part{Name: name, Wants: []any{early, last}, Objects: slices.Concat(early, last), Apply: func(ctx context.Context, before Before) ([]string, error) {
		return ReviseInOrder(ctx, c, before, early, last)
	}}
}

// ReviseInOrder is ReviseAll for groups of objects that need those before them.
func ReviseInOrder(ctx context.Context, c kubernetes.Interface, before Before, groups ...[]runtime.Object) (theirs []string, err error) {
	for _, g := range groups {
		t, err := ReviseAll(ctx, c, before, g...)
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, t...)
	}
	return theirs, nil
}

// recorded is a part and what is recorded of it.
type recorded struct {
	Part
	digest string // of what it wants now
	has    string // the digest that is recorded; empty is none
	before Before
}

func read(ctx context.Context, c kubernetes.Interface, parts []Part) ([]recorded, error) {
	have, err := Applied(ctx, c)
	if err != nil {
		return nil, err
	}
	objects, err := appliedObjects(ctx, c)
	if err != nil {
		return nil, err
	}
	var all []recorded
	for _, p := range parts {
		digest, err := Digest(p.Wants)
		if err != nil {
			return nil, err
		}
		all = append(all, recorded{p, digest, have[p.Name], unpack(objects[p.Name])})
	}
	return all, nil
}

// missing returns the parts that are not applied with what they want now.
func missing(ctx context.Context, c kubernetes.Interface, parts []Part) ([]recorded, error) {
	all, err := read(ctx, c, parts)
	return slices.DeleteFunc(all, func(p recorded) bool { return p.has == p.digest }), err
}

// Put applies a part whether or not it is recorded, and records it.
func (p Part) Put(ctx context.Context, c kubernetes.Interface, log *slog.Logger) error {
	all, err := read(ctx, c, []Part{p})
	if err != nil {
		return err
	}
	return all[0].put(ctx, c, log)
}

// AllApplied says whether each part is applied with what it wants now.
func AllApplied(ctx context.Context, c kubernetes.Interface, parts []Part) (bool, error) {
	todo, err := missing(ctx, c, parts)
	return err == nil && len(todo) == 0, err
}

// ApplyMissing applies the parts that are missing, side by side, and records
// each when it is whole.
func ApplyMissing(ctx context.Context, c kubernetes.Interface, log *slog.Logger, parts []Part) error {
	todo, err := missing(ctx, c, parts)
	if err != nil {
		return err
	}
	var g errgroup.Group // one that fails lets the others end: they are needed too
	for _, p := range todo {
		g.Go(func() error { return p.put(ctx, c, log) })
	}
	return g.Wait()
}

// ApplyInOrder applies and records the parts that are missing one after
// another. One that cannot be applied yet does not hold up the others: they may
// bring what it waits for, such as the definition of its kind.
func ApplyInOrder(ctx context.Context, c kubernetes.Interface, log *slog.Logger, parts []Part) error {
	todo, err := missing(ctx, c, parts)
	if err != nil {
		return err
	}
	var waiting error
	for _, p := range todo {
		err := p.put(ctx, c, log)
		if err != nil && !Temporary(err) {
			return err
		}
		if waiting == nil {
			waiting = err
		}
	}
	return waiting
}

// put applies a part and notes that it did. Nobody looks at the cluster's
// objects one by one after an update: the log says where an administrator's
// word has stood against the image's.
func (p recorded) put(ctx context.Context, c kubernetes.Interface, log *slog.Logger) error {
	objs, err := objectsOf(p.Objects) // before Apply, which may change them
	if err != nil {
		return err
	}
	theirs, err := p.Apply(ctx, p.before)
	if err != nil {
		return err
	}
	for _, t := range theirs {
		log.Warn("the cluster's administrators have the last word: "+t, slog.String("part", p.Name))
	}
	if err := recordObjects(ctx, c, log, p.Name, objs); err != nil {
		return err
	}
	return Record(ctx, c, p.Name, p.digest)
}
