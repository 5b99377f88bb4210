package pki

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

const (
	year     = 365 * 24 * time.Hour
	backdate = 5 * time.Minute
)

// life is how long certificates are valid, and lifeOfCA authorities' own.
func life(n *config.Node) time.Duration {
	if d := n.Cluster.CertificateValidityPeriod; d != nil {
		return d.Duration
	}
	return year
}

func lifeOfCA(n *config.Node) time.Duration {
	if d := n.Cluster.CACertificateValidityPeriod; d != nil {
		return d.Duration
	}
	return 10 * year
}

// Form is how a version's kubeadm makes certificates; see the facts of these
// names.
type Form struct {
	LeafConstraints, AuthorityNames, AuthoritySerial, Backdate, OwnBeginning bool
}

func formOf(rel images.Release) Form {
	return Form{
		LeafConstraints: rel.Has(images.FactLeafConstraints),
		AuthorityNames:  rel.Has(images.FactAuthorityNames),
		AuthoritySerial: rel.Has(images.FactAuthoritySerial),
		Backdate:        rel.Has(images.FactBackdate),
		OwnBeginning:    rel.Has(images.FactOwnBeginning),
	}
}

// Clock is what certificates are dated and judged by.
type Clock struct {
	// Now is what the machine's clock shows. Certificates begin then at the
	// latest, so that they are in force at once for everything on the machine.
	Now time.Time
	// Built is when the image was built; a clock that shows less is wrong, and
	// lives are counted from here then. Zero is not known.
	Built time.Time
}

// now is the best guess of the time: never before the image was built.
func (c Clock) now() time.Time {
	if c.Now.Before(c.Built) {
		return c.Built
	}
	return c.Now
}

// begin is when an authority begins: when the image was built, so that a clock
// that is ahead now and put right later does not make it invalid.
func (c Clock) begin() time.Time {
	if !c.Built.IsZero() && c.Built.Before(c.Now) {
		return c.Built
	}
	return c.Now
}

// Kinds of keys, by kubeadm's names for them.
const (
	rsa2048   = "RSA-2048"
	ecdsaP256 = "ECDSA-P256"
)

// Algorithm is the kind of the cluster's keys: what kubeadm's feature gate
// PublicKeysECDSA says where there is one, else what encryptionAlgorithm does.
func Algorithm(n *config.Node, rel images.Release) string {
	on, given := n.Cluster.FeatureGates["PublicKeysECDSA"]
	switch {
	case given && on && rel.Has(images.FactECDSAGate):
		return ecdsaP256
	case given && rel.Has(images.FactECDSAGate):
		return rsa2048
	}
	return cmp.Or(n.Cluster.EncryptionAlgorithm, rsa2048)
}

// newKey makes a key of a kind.
func newKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case rsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case "RSA-3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA-4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case ecdsaP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSA-P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("there are no keys of the kind %q (encryptionAlgorithm)", algorithm)
}

// serial is a random serial number of 62 bits, never zero.
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).SetInt64(1<<62))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

// selfSign makes the certificate of an authority.
func selfSign(c Cert, key crypto.Signer, clock Clock) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          new(big.Int),
		Subject:               pkix.Name{CommonName: c.CN, Organization: c.Org},
		NotBefore:             clock.begin().UTC(),
		NotAfter:              clock.now().Add(c.Life).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if c.Form.AuthoritySerial {
		n, err := serial()
		if err != nil {
			return nil, err
		}
		t.SerialNumber = n
	}
	if c.Form.AuthorityNames {
		t.DNSNames = []string{c.CN}
	}
	if c.Form.Backdate {
		t.NotBefore = t.NotBefore.Add(-backdate)
	}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// sign makes a certificate for pub. It is valid from the authority's first
// second on, or in the versions in which it has a beginning of its own from when
// the image was built, so that a clock that is corrected backwards does not make
// it invalid.
func sign(c Cert, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, clock Clock) ([]byte, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          n,
		Subject:               pkix.Name{CommonName: c.CN, Organization: c.Org},
		DNSNames:              c.DNS,
		IPAddresses:           c.IPs,
		NotBefore:             ca.NotBefore,
		NotAfter:              clock.now().Add(c.Life).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           c.Usages,
		BasicConstraintsValid: c.Form.LeafConstraints,
	}
	if c.Form.OwnBeginning {
		t.NotBefore = clock.begin().Add(-backdate).UTC()
	}
	return x509.CreateCertificate(rand.Reader, t, ca, pub, caKey)
}
