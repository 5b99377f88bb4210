package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

const (
	keyBits  = 2048
	lifeCA   = 10 * 365 * 24 * time.Hour
	lifeLeaf = 365 * 24 * time.Hour
)

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

// newKey makes a key as kubeadm makes it: RSA of 2048 bits, or P-256 where its
// feature gate PublicKeysECDSA asks for it.
func newKey(elliptical bool) (crypto.Signer, error) {
	if elliptical {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, keyBits)
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
		SerialNumber:          new(big.Int), // as kubeadm's authorities
		Subject:               pkix.Name{CommonName: c.CN, Organization: c.Org},
		NotBefore:             clock.begin().UTC(),
		NotAfter:              clock.now().Add(lifeCA).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// sign makes a certificate for pub. It is valid from the authority's first
// second on, so that a clock that is corrected backwards does not make it
// invalid.
func sign(c Cert, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, clock Clock) ([]byte, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	life := c.Life
	if life == 0 {
		life = lifeLeaf
	}
	t := &x509.Certificate{
		SerialNumber: n,
		Subject:      pkix.Name{CommonName: c.CN, Organization: c.Org},
		DNSNames:     c.DNS,
		IPAddresses:  c.IPs,
		NotBefore:    ca.NotBefore,
		NotAfter:     clock.now().Add(life).UTC(),
		KeyUsage:     x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  c.Usages,
	}
	return x509.CreateCertificate(rand.Reader, t, ca, pub, caKey)
}
