package firstboot

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// placeClientCertificate puts the kubelet's first client certificate where the
// kubelet keeps those that it rotates, and points its kubeconfig there. That
// is how kubelet-finalize leaves a node too; done before the kubelet starts it
// saves a restart of the kubelet in the middle of coming up.
//
// A kubelet that has rotated already is left alone, and so is a kubeconfig
// that names files.
func placeClientCertificate(r *Run) error {
	if !rotates(r.Node) || !r.Host.Exists(kubeletKubeconfig) {
		return nil
	}
	conf, user, err := readKubeletConf(r)
	if err != nil {
		return err
	}
	current := rotatedCertificate(r.Node)
	first := path.Join(path.Dir(current), "kubelet-client-first.pem")
	if len(user.ClientCertificateData) == 0 || len(user.ClientKeyData) == 0 {
		return nil
	}
	if to, err := r.Host.Root.Readlink(strings.TrimPrefix(current, "/")); err == nil && to != path.Base(first) {
		return nil
	} else if err != nil && r.Host.Exists(current) {
		return nil // a file: not ours to judge
	}
	if err := r.Host.MkdirAll(path.Dir(current), 0o755); err != nil {
		return err
	}
	pair := bytes.Join([][]byte{bytes.TrimSpace(user.ClientCertificateData), bytes.TrimSpace(user.ClientKeyData), nil}, []byte("\n"))
	if err := r.Host.WriteFile(first, pair, 0o600); err != nil {
		return err
	}
	// Relative: the kubelet takes any link, and puts its own in the place.
	if err := r.Host.Symlink(path.Base(first), current); err != nil {
		return err
	}
	user.ClientCertificate, user.ClientKey = current, current
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	b, err := clientcmd.Write(*conf)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", kubeletKubeconfig, err)
	}
	return r.Host.WriteFile(kubeletKubeconfig, b, 0o600)
}
