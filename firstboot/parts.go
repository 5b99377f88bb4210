package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// adminKubeconfig is the kubeconfig with which a control-plane node sets its
// cluster up.
const adminKubeconfig = "/etc/kubernetes/admin.conf"

// asAdmin connects to the cluster as its administrator.
func asAdmin(r *Run) (kubernetes.Interface, *rest.Config, error) {
	c, cfg, err := cluster.Connect(r.Host, adminKubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: the kubeconfig step writes it", err)
	}
	return c, cfg, err
}

// asNode connects to the cluster as its administrator where this node can, and
// else as the node itself.
func asNode(r *Run) (kubernetes.Interface, *rest.Config, error) {
	if r.Node.Role != config.RoleWorker {
		return asAdmin(r)
	}
	return cluster.Connect(r.Host, kubeletKubeconfig)
}

// part is a share of what a step puts into the cluster. It is applied once for
// each content that an image and a node's configuration ask for, and then left
// to the cluster's administrators: see cluster.Applied.
type part struct {
	name  string // "addon.coredns"
	wants any    // all that it depends on; its digest is what is recorded
	apply func(ctx context.Context) error
}

// objectsPart is a part that holds objects: early ones side by side, then the
// last ones.
func objectsPart(c kubernetes.Interface, name string, early, last []runtime.Object) part {
	return part{name, []any{early, last}, func(ctx context.Context) error {
		if err := cluster.EnsureAll(ctx, c, early...); err != nil {
			return err
		}
		return cluster.EnsureAll(ctx, c, last...)
	}}
}

// missing returns the parts that are not applied with what they want now.
func missing(ctx context.Context, c kubernetes.Interface, parts []part) ([]part, error) {
	have, err := cluster.Applied(ctx, c)
	if err != nil {
		return nil, err
	}
	var todo []part
	for _, p := range parts {
		digest, err := cluster.Digest(p.wants)
		if err != nil {
			return nil, err
		}
		if have[p.name] != digest {
			todo = append(todo, p)
		}
	}
	return todo, nil
}

// applyMissing applies the parts that are missing, side by side, and records
// each when it is whole.
func applyMissing(ctx context.Context, c kubernetes.Interface, parts []part) error {
	todo, err := missing(ctx, c, parts)
	if err != nil {
		return err
	}
	var g errgroup.Group // one that fails lets the others end: they are needed too
	for _, p := range todo {
		g.Go(func() error { return p.record(ctx, c) })
	}
	return g.Wait()
}

// record applies a part and notes that it did.
func (p part) record(ctx context.Context, c kubernetes.Interface) error {
	digest, err := cluster.Digest(p.wants)
	if err != nil {
		return err
	}
	if err := p.apply(ctx); err != nil {
		return err
	}
	return cluster.Record(ctx, c, p.name, digest)
}

// skips says whether the configuration leaves out a sub-phase, which is named
// as kubeadm names it: "addon/kube-proxy".
func skips(n *config.Node, phase string) bool { return slices.Contains(n.Init.SkipPhases, phase) }

// userSupplied says whether any field of a kind ("kubelet", "kubeProxy") was
// given to the node. kubeadm signs only what it made up itself, so that its
// upgrade may replace it.
func userSupplied(n *config.Node, kind string) bool {
	for path, source := range n.Sources {
		if strings.HasPrefix(path, kind+".") && strings.Contains(source, ", line ") {
			return true
		}
	}
	return false
}

// partsOf builds a step's parts; it makes no request.
type partsOf func(r *Run, c kubernetes.Interface) ([]part, error)

// partsApplied is the Done of a step that consists of parts.
func partsApplied(ctx context.Context, r *Run, build partsOf) (bool, error) {
	c, _, err := asAdmin(r)
	if err != nil {
		return false, err
	}
	parts, err := build(r, c)
	if err != nil {
		return false, err
	}
	todo, err := missing(ctx, c, parts)
	return err == nil && len(todo) == 0, cluster.RetryIfTemporary(err)
}

// applyParts is the Do of a step that consists of parts.
func applyParts(ctx context.Context, r *Run, build partsOf) error {
	c, _, err := asAdmin(r)
	if err != nil {
		return err
	}
	parts, err := build(r, c)
	if err != nil {
		return err
	}
	return cluster.RetryIfTemporary(applyMissing(ctx, c, parts))
}
