package apitest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pki holds what a kubeconfig embeds, as PEM.
type pki struct{ ca, admin, adminKey []byte }

// makePKI writes the files of kubeadm's certificate directory that tests need:
// the authorities with their keys, the API server's certificate and the
// service account's keys. The API server is reached at host.
func makePKI(t testing.TB, dir string, host net.IP) *pki {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // one key for all: this is a test
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	serial := int64(0)
	issue := func(tmpl x509.Certificate, parent *x509.Certificate) (*x509.Certificate, []byte) {
		serial++
		tmpl.SerialNumber = big.NewInt(serial)
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		if parent == nil {
			parent = &tmpl
		}
		der, err := x509.CreateCertificate(rand.Reader, &tmpl, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, block("CERTIFICATE", der)
	}
	authority := func(cn string) (*x509.Certificate, []byte) {
		return issue(x509.Certificate{Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, nil)
	}
	ca, caPEM := authority("kubernetes")
	_, etcdPEM := authority("etcd-ca")
	_, frontPEM := authority("front-proxy-ca")
	_, server := issue(x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca)
	_, admin := issue(x509.Certificate{Subject: pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca)
	for name, b := range map[string][]byte{
		"ca.crt": caPEM, "ca.key": keyPEM,
		"etcd/ca.crt": etcdPEM, "etcd/ca.key": keyPEM,
		"front-proxy-ca.crt": frontPEM, "front-proxy-ca.key": keyPEM,
		"apiserver.crt": server, "apiserver.key": keyPEM,
		"sa.pub": block("PUBLIC KEY", pub), "sa.key": keyPEM,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &pki{caPEM, admin, keyPEM}
}

func block(kind string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

func base64of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
