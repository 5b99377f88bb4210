package firstboot

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// stepBootstrapToken lets nodes join: the tokens of the configuration, the
// rules by which a token's holder finds the cluster, posts a certificate
// request and has it approved, and cluster-info, which anybody may read.
//
// The tokens are made once in the cluster's life: they expire, and a reboot
// must not bring them back.
func stepBootstrapToken() converge.Step {
	return converge.Step{
		Name: "bootstrap-token",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			return partsApplied(ctx, m, bootstrapTokenParts)
		},
		Do: func(ctx context.Context, m *node.Machine) error { return applyParts(ctx, m, bootstrapTokenParts) },
	}
}

func bootstrapTokenParts(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error) {
	admin, err := m.Host.ReadFile(node.AdminKubeconfig)
	if err != nil {
		return nil, err
	}
	info, err := cluster.Info(admin)
	if err != nil {
		return nil, err
	}
	objs := append(readable("kubeadm:bootstrap-signer-clusterinfo", metav1.NamespacePublic, "configmaps", info.Name,
		rbacv1.Subject{Kind: rbacv1.UserKind, Name: anonymousUser}), info)
	parts := []cluster.Part{joinRulesPart(m, c), cluster.ObjectsPart(c, "bootstrap-token.cluster-info", objs, nil)}
	for _, t := range m.Node.Init.BootstrapTokens { // none, once they have served and are forgotten
		id, err := cluster.TokenID(t.Token)
		if err != nil {
			return nil, err
		}
		// Neither the secret nor the moment of expiry may decide whether the
		// token is made again.
		parts = append(parts, cluster.Part{Name: "bootstrap-token.id-" + id, Wants: id, Apply: func(ctx context.Context, _ cluster.Before) ([]string, error) {
			s, err := cluster.TokenSecret(t, m.Host.Now())
			if err != nil {
				return nil, err
			}
			_, err = c.CoreV1().Secrets(s.Namespace).Create(ctx, s, metav1.CreateOptions{FieldManager: cluster.Manager})
			if err != nil && !apierrors.IsAlreadyExists(err) { // made before a crash: its time runs
				return nil, fmt.Errorf("cannot create bootstrap token %s: %w", id, err)
			}
			return nil, nil
		}})
	}
	return parts, nil
}

// joinRulesPart is under one name whoever applies it, a first control plane or
// one that has joined: so each knows what people have taken away.
func joinRulesPart(m *node.Machine, c kubernetes.Interface) cluster.Part {
	return cluster.ObjectsPart(c, "bootstrap-token.rules", joinRules(m.Release()), nil)
}

// joinRules are the cluster-wide rights of joining and of joined nodes, and of the
// API server at their kubelets.
func joinRules(rel images.Release) []runtime.Object {
	joining := group(bootstrapGroup)
	rules := []runtime.Object{
		bindClusterRole("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", joining),
		bindClusterRole("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", joining),
		bindClusterRole("kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", group(nodesGroup)),
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "kubeadm:get-nodes"},
			Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}},
		},
		bindClusterRole("kubeadm:get-nodes", "kubeadm:get-nodes", joining),
	}
	if rel.KubeletClient == "" {
		rules = append(rules, bindClusterRole("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin",
			rbacv1.Subject{Kind: rbacv1.UserKind, Name: pki.KubeletClientUser}))
	}
	return rules
}
