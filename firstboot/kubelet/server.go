package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// MoveServer makes the kubelet of a control plane n talk to the API server that
// the version rel has it talk to: its own machine's in place of the cluster's
// endpoint, or the other way round where the cluster has turned that off. A server
// that is neither stays. (kubeadm: cmd/kubeadm/app/phases/upgrade/postupgrade.go,
// UpdateKubeletKubeconfigServer)
func MoveServer(m *node.Machine, n *config.Node, rel images.Release) error {
	b, err := m.Host.ReadFile(node.KubeletKubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the kubelet's kubeconfig: %w", err)
	}
	from, to := pki.Endpoint(n), pki.LocalServer(n)
	switch {
	case rel.With(n.Cluster.FeatureGates).Has(images.FactLocalAPIServer):
	case rel.Has(images.FactLocalAPIServer): // a gate turns it off
		from, to = to, from
	default:
		return nil
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return fmt.Errorf("cannot read %s: it is no kubeconfig", node.KubeletKubeconfig)
	}
	now := conf.Contexts[conf.CurrentContext]
	if now == nil || conf.Clusters[now.Cluster] == nil || conf.Clusters[now.Cluster].Server != from || from == to {
		return nil
	}
	conf.Clusters[now.Cluster].Server = to
	if b, err = clientcmd.Write(*conf); err != nil {
		return fmt.Errorf("cannot write %s: %w", node.KubeletKubeconfig, err)
	}
	m.Host.Log.Info("the kubelet talks to another API server from now on", slog.String("from", from), slog.String("to", to))
	return m.Host.WriteFile(node.KubeletKubeconfig, b, 0o600)
}
