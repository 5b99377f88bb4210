package pki

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// Authorities makes what a cluster is known by before any node of it is there:
// the authorities with their keys and the service-account key pair, as PEM by
// the path below the certificates directory ("etcd/ca.key"). They are what
// Ensure makes on a first control plane that has none. Nothing is written.
func Authorities(ctx context.Context, n *config.Node, rel images.Release, clock Clock) (map[string][]byte, error) {
	table, err := Table(n, rel)
	if err != nil {
		return nil, err
	}
	names := []string{SAKey}
	for _, c := range table {
		if c.CA == "" {
			names = append(names, c.Base)
		}
	}
	keys, err := makeKeys(ctx, names, Algorithm(n, rel))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, c := range table {
		if c.CA != "" {
			continue
		}
		der, err := selfSign(c, keys[c.Base], clock)
		if err != nil {
			return nil, fmt.Errorf("cannot sign %s: %w", c.Name, err)
		}
		files[c.CrtPath("")] = encodeCert(der)
		if files[c.KeyPath("")], err = encodeKey(keys[c.Base]); err != nil {
			return nil, err
		}
	}
	if files[SAKey], err = encodeKey(keys[SAKey]); err != nil {
		return nil, err
	}
	files[SAPub], err = encodePublic(keys[SAKey].Public())
	return files, err
}

// Issue makes the kubeconfig with an authority that is no file of a machine:
// crt and key are PEM. lasts is how long it is valid; zero is as long as the
// cluster's certificates are. Nothing is written.
func (k Kubeconfig) Issue(n *config.Node, crt, key []byte, lasts time.Duration, clock Clock) ([]byte, error) {
	certs, err := parseCerts(crt)
	if err != nil {
		return nil, fmt.Errorf("cannot use the cluster's authority: %w", err)
	}
	ca := pair{cert: certs[0]}
	if ca.key, err = parseKey(key); err != nil {
		return nil, fmt.Errorf("cannot use the key of the cluster's authority: %w", err)
	}
	if !samePublic(ca.cert.PublicKey, ca.key.Public()) {
		return nil, errors.New("cannot use the cluster's authority: its key is another one's")
	}
	if err := valid(Cert{Base: CA}, ca.cert, nil, clock.now()); err != nil {
		return nil, fmt.Errorf("cannot use the cluster's authority: %w", err)
	}
	if lasts = cmp.Or(lasts, k.Life); lasts < 0 {
		return nil, fmt.Errorf("cannot make a kubeconfig that is valid for %v, which is not longer than zero: ask for more", lasts)
	}
	k.Life = lasts
	if end := clock.now().Add(lasts); end.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("cannot make a kubeconfig that is valid until %s: the cluster's authority ends on %s: ask for less", end.UTC().Format(time.RFC3339), ca.cert.NotAfter.Format(time.RFC3339))
	}
	made, err := newKey(k.Algorithm)
	if err != nil {
		return nil, err
	}
	return k.make(n, ca, made, clock)
}

// Pins are kubeadm's pins of the authorities in a PEM file, "sha256:HEX": the
// digest of the Subject Public Key Info, so that an authority that is renewed
// with its key keeps its pin. (kubeadm: cmd/kubeadm/app/util/pubkeypin)
func Pins(crt []byte) ([]string, error) {
	certs, err := parseCerts(crt)
	if err != nil {
		return nil, err
	}
	var pins []string
	for _, c := range certs {
		pins = append(pins, pin(c))
	}
	return pins, nil
}

func pin(c *x509.Certificate) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}
