package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// stepClusterAdmins gives admin.conf its rights, in versions in which a binding
// does that: without it no later step could do anything. kubeadm makes it
// whenever it uses admin.conf for the first time.
func stepClusterAdmins() converge.Step {
	return converge.Step{
		Name: "cluster-admins",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !m.Release().Has(images.FactSuperAdminConf) {
				return true, nil
			}
			c, _, err := m.AsAdmin()
			if err != nil {
				return false, err
			}
			return isClusterAdmin(ctx, c)
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return cluster.RetryIfTemporary(bindClusterAdmins(ctx, m))
		},
	}
}

// isClusterAdmin says whether there is the binding, and c sees it.
func isClusterAdmin(ctx context.Context, c kubernetes.Interface) (bool, error) {
	_, err := c.RbacV1().ClusterRoleBindings().Get(ctx, pki.ClusterAdmins, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return false, nil
	}
	return err == nil, cluster.RetryIfTemporary(err)
}

// bindClusterAdmins makes the binding: as the administrator where that is allowed,
// as it is in a cluster of an earlier version, else as the one whom RBAC does not
// bind.
func bindClusterAdmins(ctx context.Context, m *node.Machine) error {
	c, _, err := m.AsAdmin()
	if err != nil {
		return err
	}
	binding := bindClusterRole(pki.ClusterAdmins, "cluster-admin", group(pki.ClusterAdmins))
	create := func(c kubernetes.Interface) error {
		_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{FieldManager: cluster.Manager})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	err = create(c)
	if apierrors.IsForbidden(err) {
		super, err := asSuperAdmin(m)
		if err != nil {
			return err
		}
		if err := create(super); err != nil {
			return fmt.Errorf("cannot make the ClusterRoleBinding %s: %w", pki.ClusterAdmins, err)
		}
	} else if err != nil {
		return fmt.Errorf("cannot make the ClusterRoleBinding %s: %w", pki.ClusterAdmins, err)
	}
	is, err := isClusterAdmin(ctx, c)
	if err == nil && !is {
		return outcome.Retry{After: 200 * time.Millisecond, Why: "the API server does not go by the ClusterRoleBinding " + pki.ClusterAdmins + " yet"}
	}
	return err
}

// asSuperAdmin connects to the cluster as the administrator whom RBAC does not
// bind: by the kubeconfig that a first control plane has, or on another one, and
// where the file was taken away, by a certificate that the cluster's authority
// signs here for the purpose and that is written nowhere.
func asSuperAdmin(m *node.Machine) (kubernetes.Interface, error) {
	c, _, err := cluster.Connect(m.Host, path.Join(pki.KubernetesDir, pki.SuperAdminConf))
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	dir := m.Node.Cluster.CertificatesDir
	crt, err := m.Host.ReadFile(path.Join(dir, pki.CA+".crt"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the cluster's authority: %w", err)
	}
	key, err := m.Host.ReadFile(path.Join(dir, pki.CA+".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, outcome.Retry{After: outcome.Soon(), Why: fmt.Sprintf("admin.conf has no rights in the cluster: the ClusterRoleBinding %s is missing, and this machine has neither %s nor the authority's key to make it with; make it from another one: kubectl create clusterrolebinding %[1]s --clusterrole=cluster-admin --group=%[1]s", pki.ClusterAdmins, pki.SuperAdminConf)}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the cluster's authority: %w", err)
	}
	super := pki.SuperAdmin(m.Node, m.Release())
	b, err := super.Issue(m.Node, crt, key, time.Hour, m.Clock())
	if err != nil {
		return nil, err
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil, err
	}
	m.Host.Log.Info("the binding of the cluster's administrators is made with the authority's key", slog.String("binding", pki.ClusterAdmins))
	c, _, err = cluster.Client(m.Host, *conf)
	return c, err
}
