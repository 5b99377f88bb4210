package firstboot

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepDownloadCerts gets what all control-plane nodes share out of the cluster,
// where another one has put it, encrypted (kubeadm join phase
// control-plane-prepare download-certs). Without a certificate key the files
// must be there already: a second authority is never made.
func stepDownloadCerts() converge.Step {
	return converge.Step{
		Name: "download-certs",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			return len(missingShared(m)) == 0, nil
		},
		Do: downloadCerts,
	}
}

// missingShared are the shared files that are not there and must be. The keys
// of authorities may be missing (external CA).
func missingShared(m *node.Machine) []string {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(sharedCerts(m.Node))) {
		file := sharedCerts(m.Node)[name]
		authority := strings.HasSuffix(name, "ca.key")
		if file != "" && !authority && !m.Host.Exists(file) {
			missing = append(missing, file)
		}
	}
	return missing
}

func downloadCerts(ctx context.Context, m *node.Machine) error {
	key := m.Node.Init.CertificateKey
	if key == "" {
		return outcome.Refused{Why: "a control-plane node needs the cluster's certificates, and there is neither a certificateKey nor " + strings.Join(missingShared(m), ", "), Remedy: "give certificateKey in user-data; `kubeadm init phase upload-certs --upload-certs` prints one"}
	}
	sealer, err := cluster.NewSealer(key)
	if err != nil {
		return outcome.Refuse("%w", err)
	}
	c, _, err := cluster.Connect(m.Host, node.BootstrapKubeconfig)
	if err != nil {
		return err
	}
	secret, err := c.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, certsSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return outcome.Retry{After: outcome.Soon(), Why: "the cluster holds no uploaded certificates (Secret " + certsSecret + "), or no more: they live for two hours. Upload them again with this node's key: `kubeadm init phase upload-certs --upload-certs --certificate-key KEY`"}
	}
	if err != nil {
		return cluster.JoinOutcome(err, m.Host.Now())
	}
	files, err := openShared(m, sealer, secret.Data)
	if err != nil {
		return err
	}
	// Keys first: a certificate without its key would mean that the key is
	// elsewhere.
	for _, certificates := range []bool{false, true} {
		for _, file := range slices.Sorted(maps.Keys(files)) {
			mode := fs.FileMode(0o600)
			if strings.HasSuffix(file, ".crt") {
				mode = 0o644
			}
			if strings.HasSuffix(file, ".crt") != certificates {
				continue
			}
			if err := m.Host.WriteFile(file, files[file], mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// openShared decrypts the Secret's entries, by file, and judges them.
func openShared(m *node.Machine, sealer *cluster.Sealer, data map[string][]byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, file := range sharedCerts(m.Node) {
		sealed, ok := data[name]
		if !ok {
			return nil, outcome.Refused{Why: "Secret " + certsSecret + " holds no " + name, Remedy: "upload the certificates again from a control plane of this cluster"}
		}
		if len(sealed) == 0 || file == "" {
			continue // an external authority's key, or an etcd without TLS
		}
		plain, err := sealer.Open(sealed)
		if err != nil {
			return nil, outcome.Refused{Why: fmt.Sprintf("%s in Secret %s: %v", name, certsSecret, err), Remedy: "give the certificateKey in user-data that the certificates were uploaded with, or upload them again"}
		}
		if block, _ := pem.Decode(plain); block == nil {
			return nil, outcome.Refused{Why: name + " in Secret " + certsSecret + " holds no PEM", Remedy: "upload the certificates again"}
		}
		files[file] = plain
	}
	// Who uploaded them must be of the cluster that was found.
	b, err := m.Host.ReadFile(node.BootstrapKubeconfig)
	if err != nil {
		return nil, err
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: it is no kubeconfig", node.BootstrapKubeconfig)
	}
	ca := files[path.Join(m.Node.Cluster.CertificatesDir, "ca.crt")]
	for _, c := range conf.Clusters {
		if !bytes.Contains(c.CertificateAuthorityData, bytes.TrimSpace(ca)) {
			return nil, outcome.Refused{Why: "the uploaded ca.crt is not the authority of the cluster that was found", Remedy: "upload the certificates again from a control plane of this cluster"}
		}
	}
	return files, nil
}
