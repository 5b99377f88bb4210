package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/config"
)

const usagePrefix = "usage-bootstrap-"

// TokenFromSecret reads what TokenSecret, or kubeadm, has made. It has an
// expiry date or none, and no TTL.
func TokenFromSecret(s *corev1.Secret) (config.BootstrapToken, error) {
	t := config.BootstrapToken{
		Token:       config.Secret(fmt.Sprintf("%s.%s", s.Data["token-id"], s.Data["token-secret"])),
		Description: string(s.Data["description"]),
	}
	id, err := TokenID(t.Token)
	if err != nil {
		return t, fmt.Errorf("the Secret %s/%s holds no bootstrap token: %w", s.Namespace, s.Name, err)
	}
	if s.Name != tokenSecretName(id) {
		return t, fmt.Errorf("the Secret %s/%s holds the token %s, and should be named %s", s.Namespace, s.Name, id, tokenSecretName(id))
	}
	if text := string(s.Data["expiration"]); text != "" {
		end, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return t, fmt.Errorf("the Secret %s/%s has no readable expiration date", s.Namespace, s.Name)
		}
		t.Expires = &metav1.Time{Time: end}
	}
	for k, v := range s.Data {
		if usage, ok := strings.CutPrefix(k, usagePrefix); ok && string(v) == "true" {
			t.Usages = append(t.Usages, usage)
		}
	}
	slices.Sort(t.Usages)
	if groups := string(s.Data["auth-extra-groups"]); groups != "" {
		t.Groups = strings.Split(groups, ",")
	}
	return t, nil
}

// TokenSecrets lists the bootstrap tokens of a cluster.
func TokenSecrets(ctx context.Context, c kubernetes.Interface) ([]corev1.Secret, error) {
	l, err := c.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(tokenSecretType)})
	if err != nil {
		return nil, fmt.Errorf("cannot list bootstrap tokens: %w", err)
	}
	return l.Items, nil
}

// HasToken says whether a cluster knows a bootstrap token by its ID.
func HasToken(ctx context.Context, c kubernetes.Interface, id string) (bool, error) {
	_, err := c.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, tokenSecretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look for bootstrap token %s: %w", id, err)
	}
	return true, nil
}

// CreateToken makes a bootstrap token known to a cluster. One with the same ID
// must not be there.
func CreateToken(ctx context.Context, c kubernetes.Interface, s *corev1.Secret) error {
	_, err := c.CoreV1().Secrets(s.Namespace).Create(ctx, s, metav1.CreateOptions{FieldManager: Manager})
	if err != nil {
		return fmt.Errorf("cannot create bootstrap token %s: %w", s.Data["token-id"], err)
	}
	return nil
}

// DeleteToken ends a bootstrap token, by its ID. One that is not there is an
// error.
func DeleteToken(ctx context.Context, c kubernetes.Interface, id string) error {
	err := c.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, tokenSecretName(id), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot delete bootstrap token %s: the cluster has none with this ID; `kbuild token list` shows those that it has", id)
	}
	if err != nil {
		return fmt.Errorf("cannot delete bootstrap token %s: %w", id, err)
	}
	return nil
}
