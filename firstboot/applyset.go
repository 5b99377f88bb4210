package firstboot

import (
	"context"
	"strings"

	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
)

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
type partsOf func(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error)

// partsApplied is the Done of a step that consists of parts.
func partsApplied(ctx context.Context, m *node.Machine, build partsOf) (bool, error) {
	c, _, err := m.AsAdmin()
	if err != nil {
		return false, err
	}
	parts, err := build(m, c)
	if err != nil {
		return false, err
	}
	ok, err := cluster.AllApplied(ctx, c, parts)
	return ok, cluster.RetryIfTemporary(err)
}

// applyParts is the Do of a step that consists of parts.
func applyParts(ctx context.Context, m *node.Machine, build partsOf) error {
	c, _, err := m.AsAdmin()
	if err != nil {
		return err
	}
	parts, err := build(m, c)
	if err != nil {
		return err
	}
	return cluster.RetryIfTemporary(cluster.ApplyMissing(ctx, c, m.Host.Log, parts))
}
