package firstboot

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// TestDiscoveryReal asks a real API server, whose cluster-info a real
// controller manager signs: each token for as long as it lives.
func TestDiscoveryReal(t *testing.T) {
	s := apitest.Real(t)
	c := s.Client(t)
	first := clusterRun(t, s, testUserdata)
	registerNode(t, c)
	if err := runSteps(t.Context(), first, clusterSteps()...); err != nil {
		t.Fatal(err)
	}
	pin, err := pinOf(s)
	if err != nil {
		t.Fatal(err)
	}
	// look is what a worker with the given token finds out.
	look := func(token, pin string) (*node.Machine, error) {
		t.Helper()
		m := joiningRun(t, first, s, "w1", pin)
		m.Node.Join.Discovery.BootstrapToken.Token = config.Secret(token)
		m.Node.Join.Discovery.TLSBootstrapToken = config.Secret(token)
		return m, stepDiscovery().Do(t.Context(), m)
	}
	refuses := func(what, want string, waits bool, err error) {
		t.Helper()
		_, wait := errors.AsType[outcome.Retry](err)
		_, final := errors.AsType[outcome.Refused](err)
		if err == nil || !strings.Contains(err.Error(), want) || wait != waits || final == waits || strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: %v (waits %t, final %t), want one with %q (waits %t)", what, err, wait, final, want, waits)
		}
	}

	_, err = look(joinToken, pin)
	refuses("unsigned", "not signed with token abcdef", true, err)

	s.ControllerManager(t, []string{"bootstrapsigner", "tokencleaner"})
	waitSigned(t, s)
	r, err := look(joinToken, pin)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := stepDiscovery().Done(t.Context(), r); !done || err != nil {
		t.Errorf("what was found is not kept: %t, %v", done, err)
	}
	if r.Node, _, err = node.Load(r.Host); err != nil {
		t.Fatal(err)
	}
	if kc, err := r.Host.ReadFile(node.BootstrapKubeconfig); err != nil || !strings.Contains(string(kc), s.URL) || r.Node.Cluster.Networking.PodSubnet != "10.244.0.0/16" {
		t.Errorf("it found %+v, %v", r.Node.Cluster.Networking, err)
	}
	_, err = look(joinToken, "sha256:"+strings.Repeat("0", 64))
	refuses("a wrong pin", "the cluster's CA is not the pinned one: it is "+pin, false, err)
	_, err = look("abcdef.fedcba9876543210", pin)
	refuses("a wrong secret of a token that there is", "is forged, or token abcdef in user-data is wrong", false, err)

	// A token that ends is deleted, and so is its signature.
	secret, err := cluster.TokenSecret(config.BootstrapToken{Token: "short0.0123456789abcdef", TTL: &metav1.Duration{Duration: time.Hour}, Usages: []string{"signing", "authentication"},
		Groups: []string{"system:bootstrappers:kubeadm:default-node-token"}}, time.Now())
	if err == nil {
		err = cluster.CreateToken(t.Context(), c, secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new token can be joined with", func() error { _, err := look("short0.0123456789abcdef", pin); return err })
	secret, err = c.CoreV1().Secrets(metav1.NamespaceSystem).Get(t.Context(), secret.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data["expiration"] = []byte(time.Now().Add(-time.Second).UTC().Format(time.RFC3339))
	if _, err := c.CoreV1().Secrets(metav1.NamespaceSystem).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token that has expired is gone, with its signature", func() error {
		info, err := c.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(t.Context(), "cluster-info", metav1.GetOptions{})
		if err == nil && info.Data["jws-kubeconfig-short0"] != "" {
			err = errors.New("cluster-info is still signed with it")
		}
		if err == nil {
			if _, err = c.CoreV1().Secrets(metav1.NamespaceSystem).Get(t.Context(), secret.Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
				return nil
			}
			err = errors.Join(errors.New("the Secret is still there"), err)
		}
		return err
	})
	_, err = look("short0.0123456789abcdef", pin)
	refuses("an expired token", "not signed with token short0: the token has expired", true, err)

	// One that signs and may not authenticate finds the cluster, and no more.
	signs := corev1.Secret{}
	if made, err := cluster.TokenSecret(config.BootstrapToken{Token: "signer.0123456789abcdef", Usages: []string{"signing"}}, time.Now()); err != nil {
		t.Fatal(err)
	} else {
		signs = *made
	}
	if err := cluster.CreateToken(t.Context(), c, &signs); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token that signs is refused for what it may not", func() error {
		if _, err := look("signer.0123456789abcdef", pin); err == nil || !strings.Contains(err.Error(), "may not authenticate") {
			return errors.Join(errors.New("it was not"), err)
		}
		return nil
	})
}

// eventually holds that something comes to be so within two minutes.
func eventually(t testing.TB, what string, is func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = is(); err == nil {
			return
		}
	}
	t.Fatalf("not after 2 minutes: %s: %v", what, err)
}
