package firstboot

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

	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// renewClientCertificate gives a kubelet whose client certificate has expired,
// on a machine that was off for long, another one: it cannot ask for one itself
// any more. Where the authority's key is not on the node nobody can.
func renewClientCertificate(r *Run) error {
	current := rotatedCertificate(r.Node)
	to, err := r.Host.Root.Readlink(strings.TrimPrefix(current, "/"))
	if err != nil {
		return nil // there is none yet, or a file, which is not ours to judge
	}
	// Kubelets make an absolute link, which Root does not follow.
	b, err := r.Host.ReadFile(path.Join(path.Dir(current), path.Base(to)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the kubelet's certificate: %w", err)
	}
	ended, err := pki.Ended(b, certClock(r))
	if err != nil || ended.IsZero() {
		return nil // the kubelet says what is wrong with it
	}
	pair, err := pki.NodeClient(r.Host, r.Node, certClock(r))
	if errors.Is(err, fs.ErrNotExist) {
		return outcome.Retry{After: 10 * time.Second, Why: fmt.Sprintf("the kubelet's certificate has expired (%s), and this machine's clock shows %s: if the clock is right, the node was off for too long, and `kbuild-firstboot reset --force` makes it a new one; a token that is good must be in its user-data",
			ended.UTC().Format(time.RFC3339), r.Host.Now().UTC().Format(time.RFC3339))}
	}
	if err != nil {
		return err
	}
	r.Host.Log.Info("the kubelet's certificate has expired and is made again", slog.Time("expired", ended))
	return placePair(r, pair)
}

// placePair makes pair, a certificate and its key, the kubelet's current one.
func placePair(r *Run, pair []byte) error {
	current := rotatedCertificate(r.Node)
	if err := r.Host.WriteFile(path.Join(path.Dir(current), firstCertificate), pair, 0o600); err != nil {
		return err
	}
	// Relative: the kubelet takes any link, and puts its own in the place.
	return r.Host.Symlink(firstCertificate, current)
}

// firstCertificate is the file of the kubelet's client certificate until it has
// rotated it.
const firstCertificate = "kubelet-client-first.pem"

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
	if len(user.ClientCertificateData) == 0 || len(user.ClientKeyData) == 0 {
		return nil
	}
	if to, err := r.Host.Root.Readlink(strings.TrimPrefix(current, "/")); err == nil && to != firstCertificate {
		return nil
	} else if err != nil && r.Host.Exists(current) {
		return nil // a file: not ours to judge
	}
	if err := r.Host.MkdirAll(path.Dir(current), 0o755); err != nil {
		return err
	}
	pair := bytes.Join([][]byte{bytes.TrimSpace(user.ClientCertificateData), bytes.TrimSpace(user.ClientKeyData), nil}, []byte("\n"))
	if err := placePair(r, pair); err != nil {
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
