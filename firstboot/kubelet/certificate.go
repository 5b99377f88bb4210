package kubelet

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// RenewCertificate gives a kubelet whose client certificate has expired,
// on a machine that was off for long, another one: it cannot ask for one itself
// any more. Where the authority's key is not on the node nobody can.
func RenewCertificate(m *node.Machine) error {
	current := CurrentCertificate(m.Node)
	to, err := m.Host.Root.Readlink(strings.TrimPrefix(current, "/"))
	if err != nil {
		return nil // there is none yet, or a file, which is not ours to judge
	}
	// Kubelets make an absolute link, which Root does not follow.
	b, err := m.Host.ReadFile(path.Join(path.Dir(current), path.Base(to)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the kubelet's certificate: %w", err)
	}
	ended, err := pki.Ended(b, m.Clock())
	if err != nil || ended.IsZero() {
		return nil // the kubelet says what is wrong with it
	}
	pair, err := pki.NodeClient(m.Host, m.Node, m.Release(), m.Clock())
	if errors.Is(err, fs.ErrNotExist) {
		return outcome.Retry{After: 10 * time.Second, Why: fmt.Sprintf("the kubelet's certificate has expired (%s), and this machine's clock shows %s: if the clock is right, the node was off for too long, and `kbuild-firstboot reset --force` makes it a new one; a token that is good must be in its user-data",
			ended.UTC().Format(time.RFC3339), m.Host.Now().UTC().Format(time.RFC3339))}
	}
	if err != nil {
		return err
	}
	m.Host.Log.Info("the kubelet's certificate has expired and is made again", slog.Time("expired", ended))
	return PlacePair(m, pair)
}

// PlacePair makes pair, a certificate and its key, the kubelet's current one.
func PlacePair(m *node.Machine, pair []byte) error {
	current := CurrentCertificate(m.Node)
	if err := m.Host.WriteFile(path.Join(path.Dir(current), firstCertificate), pair, 0o600); err != nil {
		return err
	}
	// Relative: the kubelet takes any link, and puts its own in the place.
	return m.Host.Symlink(firstCertificate, current)
}

// firstCertificate is the file of the kubelet's client certificate until it has
// rotated it.
const firstCertificate = "kubelet-client-first.pem"

// PlaceFirstCertificate puts the kubelet's first client certificate where the
// kubelet keeps those that it rotates, and points its kubeconfig there. That
// is how kubelet-finalize leaves a node too; done before the kubelet starts it
// saves a restart of the kubelet in the middle of coming up.
//
// A kubelet that has rotated already is left alone, and so is a kubeconfig
// that names files.
func PlaceFirstCertificate(m *node.Machine) error {
	if !Rotates(m.Node) || !m.Host.Exists(node.KubeletKubeconfig) {
		return nil
	}
	conf, user, err := ReadKubeconfig(m)
	if err != nil {
		return err
	}
	current := CurrentCertificate(m.Node)
	if len(user.ClientCertificateData) == 0 || len(user.ClientKeyData) == 0 {
		return nil
	}
	if to, err := m.Host.Root.Readlink(strings.TrimPrefix(current, "/")); err == nil && to != firstCertificate {
		return nil
	} else if err != nil && m.Host.Exists(current) {
		return nil // a file: not ours to judge
	}
	if err := m.Host.MkdirAll(path.Dir(current), 0o755); err != nil {
		return err
	}
	pair := bytes.Join([][]byte{bytes.TrimSpace(user.ClientCertificateData), bytes.TrimSpace(user.ClientKeyData), nil}, []byte("\n"))
	if err := PlacePair(m, pair); err != nil {
		return err
	}
	user.ClientCertificate, user.ClientKey = current, current
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	b, err := clientcmd.Write(*conf)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", node.KubeletKubeconfig, err)
	}
	return m.Host.WriteFile(node.KubeletKubeconfig, b, 0o600)
}

const (
	PKIDir = "/var/lib/kubelet/pki"
)

// Rotates says whether the kubelet rotates its client certificate.
func Rotates(n *config.Node) bool {
	if v := n.Init.NodeRegistration.KubeletExtraArgs.Get("rotate-certificates"); v != "" {
		return v != "false"
	}
	on, _ := n.Kubelet["rotateCertificates"].(bool)
	return on
}

// CurrentCertificate is the file that always holds the kubelet's current
// client certificate and key.
func CurrentCertificate(n *config.Node) string {
	dir := PKIDir
	if d := n.Init.NodeRegistration.KubeletExtraArgs.Get("cert-dir"); d != "" {
		dir = d
	}
	return path.Join(dir, "kubelet-client-current.pem")
}

// ReadKubeconfig reads the kubelet's kubeconfig and the user in it who is
// this node.
func ReadKubeconfig(m *node.Machine) (*clientcmdapi.Config, *clientcmdapi.AuthInfo, error) {
	b, err := m.Host.ReadFile(node.KubeletKubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the kubelet's kubeconfig: %w", err)
	}
	conf, err := clientcmd.Load(b)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", node.KubeletKubeconfig, err)
	}
	name := "system:node:" + m.Node.Init.NodeRegistration.Name
	if conf.AuthInfos[name] == nil {
		return nil, nil, fmt.Errorf("cannot use %s: it has no user %q; remove the file, and the next boot makes it again", node.KubeletKubeconfig, name)
	}
	return conf, conf.AuthInfos[name], nil
}

// Uses says whether u shows the certificate and key in the file pem, and nothing
// else.
func Uses(u *clientcmdapi.AuthInfo, pem string) bool {
	return u.ClientCertificate == pem && u.ClientKey == pem && len(u.ClientCertificateData) == 0 && len(u.ClientKeyData) == 0
}
