package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// authority makes a certificate of an authority, or of none, and its key.
func authority(t *testing.T, isCA bool) (crt, key, pub string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<32, 0), IsCA: isCA, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return text("CERTIFICATE", der), text("EC PRIVATE KEY", private), text("PUBLIC KEY", public)
}

func TestPKI(t *testing.T) {
	crt, key, pub := authority(t, true)
	_, otherKey, otherPub := authority(t, true)
	leaf, leafKey, _ := authority(t, false)
	for name, c := range map[string]struct {
		files map[string]string
		want  string // in the error; "" is none
	}{
		"authority":                {map[string]string{"ca.crt": crt, "ca.key": key}, ""},
		"all kinds":                {map[string]string{"etcd/ca.crt": crt, "etcd/ca.key": key, "sa.key": otherKey, "sa.pub": otherPub}, ""},
		"key of another":           {map[string]string{"ca.crt": crt, "ca.key": otherKey}, "ca.crt and ca.key are no pair"},
		"public half of another":   {map[string]string{"sa.key": otherKey, "sa.pub": pub}, "sa.pub and sa.key are no pair"},
		"key alone":                {map[string]string{"ca.key": key}, "ca.key is there without ca.crt"},
		"no authority":             {map[string]string{"ca.crt": leaf, "ca.key": leafKey}, "of no authority"},
		"certificate where a key":  {map[string]string{"sa.key": crt}, "it must hold a private key"},
		"private where the public": {map[string]string{"sa.key": key, "sa.pub": key}, "it must hold a public key"},
		"unknown file":             {map[string]string{"etcd/server.crt": crt}, "no file of a cluster's identity"},
	} {
		t.Run(name, func(t *testing.T) {
			text := short + "pki:\n"
			for file, pem := range c.files {
				text += "  " + file + ": |\n    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") + "\n"
			}
			n, _, err := load(t, text)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "":
				for file, pem := range c.files {
					if n.Init.PKI[file].Reveal() != pem {
						t.Errorf("%s is not what was given", file)
					}
				}
			case err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "test:"):
				t.Errorf("error %v, want one with a line and %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), key[60:90]) {
				t.Errorf("the error shows a key:\n%s", err)
			}
		})
	}
}
