package pki

import (
	"path"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Renewable are the files that kubeadm renews when it upgrades a control plane,
// keys included (cmd/kubeadm/app/phases/certs/renewal): everything that an
// authority on this node has signed, but for the kubelet's own. Once they are
// removed, Ensure and EnsureKubeconfigs make them anew. What an authority has
// signed whose key is elsewhere is not among them.
func Renewable(h *host.Host, n *config.Node, rel images.Release) ([]string, error) {
	table, err := Table(n, rel)
	if err != nil {
		return nil, err
	}
	dir := n.Cluster.CertificatesDir
	signs := func(ca string) bool { return h.Exists(path.Join(dir, ca+".key")) }
	var files []string
	for _, c := range table {
		if c.CA != "" && signs(c.CA) {
			files = append(files, c.CrtPath(dir), c.KeyPath(dir))
		}
	}
	if !signs(CA) {
		return files, nil
	}
	for _, k := range Kubeconfigs(n, rel) {
		if k.File != KubeletConf {
			files = append(files, path.Join(KubernetesDir, k.File))
		}
	}
	return files, nil
}
