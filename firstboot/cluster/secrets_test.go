package cluster_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

func TestTokenSecret(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := cluster.TokenSecret(config.BootstrapToken{
		Token: "abcdef.0123456789abcdef", TTL: &metav1.Duration{Duration: time.Hour},
		Usages: []string{"signing", "authentication"}, Groups: []string{"system:bootstrappers:a", "system:bootstrappers:b"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "bootstrap-token-abcdef" || s.Namespace != "kube-system" || s.Type != "bootstrap.kubernetes.io/token" {
		t.Errorf("the Secret is %s/%s of type %s", s.Namespace, s.Name, s.Type)
	}
	want := map[string]string{
		"token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": "2026-01-02T04:04:05Z",
		"usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
		"auth-extra-groups": "system:bootstrappers:a,system:bootstrappers:b",
	}
	for k, v := range want {
		if string(s.Data[k]) != v {
			t.Errorf("%s is %q, want %q", k, s.Data[k], v)
		}
	}
	if len(s.Data) != len(want) {
		t.Errorf("the Secret holds %d entries, want %d", len(s.Data), len(want))
	}

	forever, err := cluster.TokenSecret(config.BootstrapToken{Token: "abcdef.0123456789abcdef", TTL: &metav1.Duration{}}, now)
	if err != nil || forever.Data["expiration"] != nil {
		t.Errorf("a time to live of 0 expires at %s (%v), want never", forever.Data["expiration"], err)
	}
	for _, bad := range []config.Secret{"", "zyxwvu", "ZYXWVU.0123456789zyxwvu", "zyxwvu.9876543210zyxwvu0"} {
		if _, err := cluster.TokenSecret(config.BootstrapToken{Token: bad}, now); err == nil || bad != "" && strings.Contains(err.Error(), string(bad)) {
			t.Errorf("a bad token: error %v, want one that does not show it", err)
		}
	}
}

func TestSealer(t *testing.T) {
	key := cluster.NewCertificateKey()
	s, err := cluster.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("a private key")
	sealed := s.Seal(plain)
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, s.Seal(plain)) {
		t.Error("Seal does not hide, or does so twice the same way")
	}
	if got, err := s.Open(sealed); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("Open = %q, %v", got, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := s.Open(sealed); err == nil {
		t.Error("damaged data was opened")
	}
	if _, err := s.Open(sealed[:5]); err == nil {
		t.Error("short data was opened")
	}
	for _, bad := range []config.Secret{"", "abcd", "not hexadecimal", config.Secret(strings.Repeat("x", 64))} {
		if _, err := cluster.NewSealer(bad); err == nil || bad != "" && strings.Contains(err.Error(), string(bad)) {
			t.Errorf("a bad key: error %v, want one that does not show it", err)
		}
	}
}

func TestInfo(t *testing.T) {
	cm, err := cluster.Info([]byte(`apiVersion: v1
kind: Config
clusters:
- {name: a, cluster: {server: "https://192.0.2.1:6443", certificate-authority-data: Y2E=}}
- {name: b, cluster: {server: "https://192.0.2.2:6443"}}
users: [{name: me, user: {client-key-data: c2VjcmV0}}]
contexts: [{name: c, context: {cluster: a, user: me}}]
current-context: c
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Y2E=
    server: https://192.0.2.1:6443
  name: ""
contexts: null
current-context: ""
kind: Config
preferences: {}
users: null
`
	if got := cm.Data["kubeconfig"]; got != want || cm.Namespace != "kube-public" || cm.Name != "cluster-info" {
		t.Errorf("%s/%s holds\n%s\nwant\n%s", cm.Namespace, cm.Name, got, want)
	}
	if _, err := cluster.Info([]byte("apiVersion: v1\nkind: Config\ncurrent-context: x\n")); err == nil {
		t.Error("a kubeconfig without cluster gave no error")
	}
}
