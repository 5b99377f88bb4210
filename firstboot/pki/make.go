package pki

import (
	"crypto"
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

// newKey makes an RSA key of the size that kubeadm makes.
func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) }

// serial is a random serial number of 62 bits, never zero.
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).SetInt64(1<<62))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

// selfSign makes the certificate of an authority.
func selfSign(c Cert, key crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          new(big.Int), // as kubeadm's authorities
		Subject:               pkix.Name{CommonName: c.CN, Organization: c.Org},
		NotBefore:             now.UTC(),
		NotAfter:              now.Add(lifeCA).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// sign makes a certificate for pub. It is valid from the authority's first
// second on, so that a clock that is corrected backwards does not make it
// invalid.
func sign(c Cert, pub crypto.PublicKey, ca *x509.Certificate, caKey crypto.Signer, now time.Time) ([]byte, error) {
	n, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: n,
		Subject:      pkix.Name{CommonName: c.CN, Organization: c.Org},
		DNSNames:     c.DNS,
		IPAddresses:  c.IPs,
		NotBefore:    ca.NotBefore,
		NotAfter:     now.Add(lifeLeaf).UTC(),
		KeyUsage:     x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  c.Usages,
	}
	return x509.CreateCertificate(rand.Reader, t, ca, pub, caKey)
}
