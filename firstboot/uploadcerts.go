package firstboot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

const (
	certsSecret = "kubeadm-certs"
	certsRole   = "kubeadm:kubeadm-certs"
	// certsLifetime is kubeadm's: the Secret goes with its owner, a token that
	// expires.
	certsLifetime    = 2 * time.Hour
	certsOwnerReason = "Proxy for managing TTL for the kubeadm-certs secret"
	// CertificateKeyFile holds the key of the uploaded certificates when the
	// configuration names none. It is the only place where the key is shown.
	CertificateKeyFile = "/var/lib/kbuild/certificate-key"
)

// stepUploadCerts puts the certificates that all control-plane nodes share
// into the cluster for two hours, encrypted with a key that the cluster never
// sees. It is done once, and only when the configuration asks for it.
func stepUploadCerts() converge.Step {
	return converge.Step{
		Name: "upload-certs",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !m.Node.Init.UploadCerts {
				return true, nil
			}
			return partsApplied(ctx, m, uploadCertsParts)
		},
		Do: func(ctx context.Context, m *node.Machine) error { return applyParts(ctx, m, uploadCertsParts) },
	}
}

func uploadCertsParts(m *node.Machine, c kubernetes.Interface) ([]cluster.Part, error) {
	return []cluster.Part{{Name: "upload-certs", Wants: certsSecret, Apply: func(ctx context.Context, _ cluster.Before) ([]string, error) {
		key, err := certificateKey(m)
		if err != nil {
			return nil, err
		}
		if err := uploadCerts(ctx, m, c, key); err != nil {
			return nil, err
		}
		rules := readable(certsRole, metav1.NamespaceSystem, "secrets", certsSecret, group(bootstrapGroup))
		return nil, cluster.EnsureAll(ctx, c, rules...)
	}}}, nil
}

// certificateKey returns the configured key, or makes one and keeps it in
// CertificateKeyFile.
func certificateKey(m *node.Machine) (config.Secret, error) {
	if k := m.Node.Init.CertificateKey; k != "" {
		return k, nil
	}
	b, err := m.Host.ReadFile(CertificateKeyFile)
	if err == nil {
		return config.Secret(strings.TrimSpace(string(b))), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the certificate key: %w", err)
	}
	key := cluster.NewCertificateKey()
	if err := m.Host.WriteFile(CertificateKeyFile, []byte(string(key)+"\n"), 0o600); err != nil {
		return "", err
	}
	m.Host.Log.Info("made a certificate key for joining control-plane nodes", slog.String("file", CertificateKeyFile), slog.Duration("validFor", certsLifetime))
	return key, nil
}

// sharedCerts maps each name in the Secret to its file. Files that are not
// there (an external CA's key) become empty entries.
func sharedCerts(n *config.Node) map[string]string {
	files := map[string]string{}
	for _, f := range []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"} {
		files[f] = path.Join(n.Cluster.CertificatesDir, f)
	}
	if ext := n.Cluster.Etcd.External; ext != nil {
		files["external-etcd-ca.crt"] = ext.CAFile
		files["external-etcd.crt"] = ext.CertFile
		files["external-etcd.key"] = ext.KeyFile
		return files
	}
	files["etcd-ca.crt"] = path.Join(n.Cluster.CertificatesDir, "etcd/ca.crt")
	files["etcd-ca.key"] = path.Join(n.Cluster.CertificatesDir, "etcd/ca.key")
	return files
}

func uploadCerts(ctx context.Context, m *node.Machine, c kubernetes.Interface, key config.Secret) error {
	sealer, err := cluster.NewSealer(key)
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for name, file := range sharedCerts(m.Node) {
		data[name] = nil
		if file == "" {
			continue
		}
		plain, err := m.Host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fmt.Errorf("cannot read a certificate to upload: %w", err)
		}
		data[name] = sealer.Seal(plain)
	}
	owner, err := certsOwner(ctx, m, c)
	if err != nil {
		return err
	}
	return cluster.Ensure(ctx, c, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: certsSecret, Namespace: metav1.NamespaceSystem,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Secret"))},
		},
		Data: data,
	})
}

// certsOwner returns the token whose end is the end of the uploaded
// certificates. One that an interrupted run has made is used again. It serves
// no other purpose: it has no usages.
func certsOwner(ctx context.Context, m *node.Machine, c kubernetes.Interface) (*corev1.Secret, error) {
	secrets := c.CoreV1().Secrets(metav1.NamespaceSystem)
	have, err := secrets.List(ctx, metav1.ListOptions{FieldSelector: "type=bootstrap.kubernetes.io/token"})
	if err != nil {
		return nil, fmt.Errorf("cannot list bootstrap tokens: %w", err)
	}
	for _, s := range have.Items {
		end, err := time.Parse(time.RFC3339, string(s.Data["expiration"]))
		if err == nil && string(s.Data["description"]) == certsOwnerReason && end.Sub(m.Host.Now()) > certsLifetime/2 {
			return &s, nil
		}
	}
	token, err := config.NewToken(rand.Reader)
	if err != nil {
		return nil, err
	}
	want, err := cluster.TokenSecret(config.BootstrapToken{
		Token:       token,
		Description: certsOwnerReason,
		TTL:         &metav1.Duration{Duration: certsLifetime},
	}, m.Host.Now())
	if err != nil {
		return nil, err
	}
	made, err := secrets.Create(ctx, want, metav1.CreateOptions{FieldManager: cluster.Manager})
	if err != nil {
		return nil, fmt.Errorf("cannot create the token that owns the uploaded certificates: %w", err)
	}
	return made, nil
}
