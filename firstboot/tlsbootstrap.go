package firstboot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// bootstrapKey is the key of the certificate that is asked for. It is kept
// until the certificate is there, so that a boot after a power cut asks for the
// same one; the name is the kubelet's own.
const bootstrapKey = kubelet.PKIDir + "/kubelet-client.key.tmp"

// stepTLSBootstrap gets the kubelet its first client certificate with the
// bootstrap token, and removes the token's kubeconfig. A kubelet does the same
// by itself; done here it costs no start of a kubelet that can do nothing yet,
// what goes wrong can be told, and the kubelet begins with its own certificate,
// which it rotates.
func stepTLSBootstrap() converge.Step {
	return converge.Step{
		Name: "kubelet-start/tls-bootstrap",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			return m.Joined() && !m.Host.Exists(node.BootstrapKubeconfig) && !m.Host.Exists(bootstrapKey), nil
		},
		Do: tlsBootstrap,
	}
}

func tlsBootstrap(ctx context.Context, m *node.Machine) error {
	if !m.Joined() {
		if err := getCertificate(ctx, m); err != nil {
			return err
		}
	}
	if err := m.Host.Remove(node.BootstrapKubeconfig); err != nil {
		return err
	}
	return m.Host.Remove(bootstrapKey)
}

func getCertificate(ctx context.Context, m *node.Machine) error {
	b, err := m.Host.ReadFile(node.BootstrapKubeconfig)
	if err != nil {
		return fmt.Errorf("cannot read the bootstrap kubeconfig: %w", err)
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return fmt.Errorf("cannot read %s: it is no kubeconfig", node.BootstrapKubeconfig)
	}
	here := conf.Clusters[conf.Contexts[conf.CurrentContext].Cluster]
	c, _, err := cluster.Connect(m.Host, node.BootstrapKubeconfig)
	if err != nil {
		return err
	}
	if err := nameIsFree(ctx, m, c); err != nil {
		return err
	}
	key, keyPEM, err := loadBootstrapKey(m)
	if err != nil {
		return err
	}
	request, err := cluster.NodeRequest(key, m.Node.Init.NodeRegistration.Name)
	if err != nil {
		return err
	}
	cert, err := cluster.Issue(ctx, c, request, key)
	if err != nil {
		return cluster.JoinOutcome(err, m.Host.Now())
	}
	if cert == nil {
		return outcome.Retry{After: 10 * time.Second, Why: fmt.Sprintf("certificate signing request %s is not approved and signed yet; the controller manager does both, or `kubectl certificate approve` approves it", request.Name),
			Wake: func(ctx context.Context) { cluster.WatchRequest(ctx, c, request.Name) }}
	}
	if m.Node.Role == config.RoleControlPlane && m.Release().Has(images.FactLocalAPIServer) {
		here.Server = pki.LocalServer(m.Node)
	}
	return writeKubeletConf(m, here, bytes.Join([][]byte{cert, bytes.TrimSpace(keyPEM), nil}, []byte("\n")))
}

// nameIsFree refuses a name that a living node has. Two machines under one name
// would take turns in destroying each other's pods.
func nameIsFree(ctx context.Context, m *node.Machine, c kubernetes.Interface) error {
	name := m.Node.Init.NodeRegistration.Name
	n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return cluster.JoinOutcome(err, m.Host.Now())
	}
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
			return outcome.Retry{After: 5 * time.Second, Why: fmt.Sprintf("the cluster has a Ready node named %s already; give this machine another name in user-data, or stop the other and `kubectl delete node %s`: this node waits for the name", name, name)}
		}
	}
	return nil
}

// loadBootstrapKey returns the key of the certificate that is asked for, of the
// kind that kubelets make.
func loadBootstrapKey(m *node.Machine) (crypto.Signer, []byte, error) {
	b, err := m.Host.ReadFile(bootstrapKey)
	if err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
				return key, b, nil
			}
		}
		// It is nobody's yet: make another.
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the kubelet's key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the kubelet's key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the kubelet's key: %w", err)
	}
	b = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := m.Host.MkdirAll(kubelet.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	return key, b, m.Host.WriteFile(bootstrapKey, b, 0o600)
}

// writeKubeletConf puts the certificate where the kubelet keeps those that it
// rotates, and last the kubeconfig that a kubelet writes after its bootstrap:
// with it the machine has joined.
func writeKubeletConf(m *node.Machine, here *clientcmdapi.Cluster, pair []byte) error {
	current := kubelet.CurrentCertificate(m.Node)
	if err := kubelet.PlacePair(m, pair); err != nil {
		return err
	}
	// A control plane has it from those that it shares certificates with.
	if ca := m.Node.Join.CACertPath; m.Node.Role == config.RoleWorker || !m.Host.Exists(ca) {
		if err := m.Host.WriteFile(ca, here.CertificateAuthorityData, 0o644); err != nil {
			return err
		}
	}
	b, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": {Server: here.Server, CertificateAuthorityData: here.CertificateAuthorityData}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: current, ClientKey: current}},
		CurrentContext: "default-context",
	})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", node.KubeletKubeconfig, err)
	}
	return m.Host.WriteFile(node.KubeletKubeconfig, b, 0o600)
}
