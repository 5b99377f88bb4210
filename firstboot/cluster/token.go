package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/config"
)

// Keys and names of bootstrap tokens are fixed by the API server's
// authenticator and the controllers that sign cluster-info and clean up:
// k8s.io/cluster-bootstrap/token/api.
const tokenSecretType corev1.SecretType = "bootstrap.kubernetes.io/token"

var tokenForm = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// TokenID returns the public half of a bootstrap token.
func TokenID(t config.Secret) (string, error) {
	m := tokenForm.FindStringSubmatch(string(t))
	if m == nil {
		return "", fmt.Errorf("cannot use a bootstrap token: want the form abcdef.0123456789abcdef, 6 and 16 of a-z and 0-9")
	}
	return m[1], nil
}

// TokenSecret is the Secret by which the API server knows a bootstrap token.
// now is the moment from which the token's time to live counts.
func TokenSecret(t config.BootstrapToken, now time.Time) (*corev1.Secret, error) {
	id, err := TokenID(t.Token)
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{
		"token-id":     []byte(id),
		"token-secret": []byte(strings.TrimPrefix(string(t.Token), id+".")),
	}
	if t.Description != "" {
		data["description"] = []byte(t.Description)
	}
	switch {
	case t.Expires != nil:
		data["expiration"] = []byte(t.Expires.UTC().Format(time.RFC3339))
	case t.TTL != nil && t.TTL.Duration > 0: // zero never expires
		data["expiration"] = []byte(now.Add(t.TTL.Duration).UTC().Format(time.RFC3339))
	}
	for _, usage := range t.Usages {
		data[usagePrefix+usage] = []byte("true")
	}
	if len(t.Groups) > 0 {
		data["auth-extra-groups"] = []byte(strings.Join(t.Groups, ","))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: tokenSecretName(id), Namespace: metav1.NamespaceSystem},
		Type:       tokenSecretType,
		Data:       data,
	}, nil
}

func tokenSecretName(id string) string { return "bootstrap-token-" + id }
