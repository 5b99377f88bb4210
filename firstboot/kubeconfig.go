package firstboot

import (
	"context"
	"path"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/firstboot/upgrade"
	"github.com/kbuild/kbuild/images"
)

// stepKubeconfigKubelet makes the kubelet's kubeconfig (kubeadm init phase
// kubeconfig kubelet), which is all that a kubelet waits for besides the
// authority.
func stepKubeconfigKubelet() converge.Step {
	const file = pki.KubeletConf
	return converge.Step{
		Name: "kubeconfig/kubelet",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(m.Host, m.Node, m.Release(), m.Clock(), file)
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, m.Host, m.Node, m.Release(), m.Clock(), file)
		},
	}
}

// stepKubeconfig makes the kubeconfigs of the administrator, the kubelet and
// the control plane (kubeadm init phase kubeconfig all).
func stepKubeconfig() converge.Step {
	return converge.Step{
		Name: "kubeconfig",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			done, err := pki.KubeconfigsComplete(m.Host, m.Node, m.Release(), m.Clock(), kubeconfigsOf(m)...)
			return done, err
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return pki.EnsureKubeconfigs(ctx, m.Host, m.Node, m.Release(), m.Clock(), kubeconfigsOf(m)...)
		},
	}
}

// kubeconfigsOf are the kubeconfigs that a node makes itself. A kubelet that joins
// has its own from the TLS bootstrap.
func kubeconfigsOf(m *node.Machine) []string {
	files := []string{pki.AdminConf, "controller-manager.conf", "scheduler.conf"}
	if m.Node.Role.Joins() {
		return files
	}
	files = append(files, pki.KubeletConf)
	if wantsSuperAdmin(m) {
		files = append(files, pki.SuperAdminConf)
	}
	return files
}

// wantsSuperAdmin says whether a first control plane is to have super-admin.conf. It
// is made together with admin.conf, once in the cluster's life: administrators
// are told to keep it elsewhere, and it does not come back.
func wantsSuperAdmin(m *node.Machine) bool {
	file := path.Join(pki.KubernetesDir, pki.SuperAdminConf)
	switch {
	case !m.Release().Has(images.FactSuperAdminConf):
		return false
	case m.Host.Exists(file):
		return true
	case m.Host.Exists(node.AdminKubeconfig):
		return false
	}
	// Both are missing: the cluster begins, or a move to this version has taken
	// them away to be made anew.
	k, err := upgrade.ReadBackup(m)
	if err != nil || k.To != m.Baked.Release.Version {
		return true
	}
	was, err := images.Lookup(k.Version)
	return err != nil || !was.Has(images.FactSuperAdminConf) || m.Host.Exists(upgrade.BackupDir+file)
}
