package firstboot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const firstKubeletConf = `apiVersion: v1
kind: Config
clusters:
- {name: kubernetes, cluster: {server: "https://192.0.2.10:6443"}}
users:
- {name: "system:node:node-1", user: {client-certificate-data: Zmlyc3Q=, client-key-data: Zmlyc3Q=}}
contexts:
- {name: "system:node:node-1@kubernetes", context: {cluster: kubernetes, user: "system:node:node-1"}}
current-context: system:node:node-1@kubernetes
`

// finalizeRun is a machine on which the kubelet has just started; restarts
// counts how often it was started again.
func finalizeRun(t *testing.T, restarts *int) *node.Machine {
	t.Helper()
	h := testHost(t)
	h.Systemd = host.Systemd{Restart: func(_ context.Context, unit string) error {
		if unit != "kubelet.service" {
			t.Errorf("restarted %s", unit)
		}
		*restarts++
		return nil
	}}
	for name, text := range map[string]string{
		"etc/kubernetes/kubelet.conf":                       firstKubeletConf,
		"var/lib/kubelet/pki/kubelet-client-2026-01-01.pem": "certificate and key",
	} {
		file := h.Path(name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &node.Machine{Host: h, Node: &config.Node{
		Init:    config.InitConfiguration{NodeRegistration: config.NodeRegistration{Name: "node-1"}},
		Kubelet: map[string]any{"rotateCertificates": true},
	}}
}

// linkCertificate does what the kubelet does: its link is absolute.
func linkCertificate(t *testing.T, m *node.Machine) {
	t.Helper()
	if err := os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026-01-01.pem", m.Host.Path("/var/lib/kubelet/pki/kubelet-client-current.pem")); err != nil {
		t.Fatal(err)
	}
}

func TestKubeletFinalize(t *testing.T) {
	ctx := context.Background()
	restarts := 0
	m := finalizeRun(t, &restarts)
	var wait outcome.Retry
	if _, err := stepKubeletFinalize().Done(ctx, m); !errors.As(err, &wait) {
		t.Errorf("before the kubelet wrote its certificate, Done returned %v, want a Retry", err)
	}
	linkCertificate(t, m)
	if err := runSteps(ctx, m, stepKubeletFinalize()); err != nil {
		t.Fatal(err)
	}
	if restarts != 1 {
		t.Errorf("the kubelet was restarted %d times, want once", restarts)
	}
	b, err := m.Host.ReadFile("/etc/kubernetes/kubelet.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		t.Fatal(err)
	}
	user := conf.AuthInfos["system:node:node-1"]
	const pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	if user.ClientCertificate != pem || user.ClientKey != pem || len(user.ClientCertificateData)+len(user.ClientKeyData) > 0 {
		t.Errorf("the kubelet's user is %#v", user)
	}
	if conf.Clusters["kubernetes"].Server != "https://192.0.2.10:6443" || conf.CurrentContext != "system:node:node-1@kubernetes" {
		t.Errorf("the rest of kubelet.conf changed:\n%s", b)
	}
	if err := runSteps(ctx, m, stepKubeletFinalize()); err != nil || restarts != 1 {
		t.Errorf("a second boot: %v, %d restarts", err, restarts)
	}
}

// TestKubeletFinalizeCrash cuts the power, or only the program, at each change:
// either way the kubelet ends up running with its new kubeconfig.
func TestKubeletFinalizeCrash(t *testing.T) {
	ctx := context.Background()
	cut := errors.New("cut")
	for k := 1; ; k++ {
		restarts, n := 0, 0
		m := finalizeRun(t, &restarts)
		linkCertificate(t, m)
		m.Host.Effect = func(string) error {
			if n++; n >= k {
				return cut
			}
			return nil
		}
		err := runSteps(ctx, m, stepKubeletFinalize())
		if err == nil {
			if k < 4 {
				t.Errorf("only %d changes were seen", k-1)
			}
			return
		}
		if !errors.Is(err, cut) {
			t.Fatal(err)
		}
		m.Host.Effect = nil
		if err := runSteps(ctx, m, stepKubeletFinalize()); err != nil {
			t.Fatalf("run after a cut at change %d: %v", k, err)
		}
		if restarts == 0 {
			t.Errorf("after a cut at change %d the kubelet runs with the old kubeconfig", k)
		}
	}
}

func TestKubeletFinalizeWithoutRotation(t *testing.T) {
	restarts := 0
	m := finalizeRun(t, &restarts)
	m.Node.Init.NodeRegistration.KubeletExtraArgs = config.Args{"rotate-certificates": {"false"}}
	if done, err := stepKubeletFinalize().Done(context.Background(), m); !done || err != nil {
		t.Errorf("Done = %v, %v; want true: nothing is rotated", done, err)
	}
}
