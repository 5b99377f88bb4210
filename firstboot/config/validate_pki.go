package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// pkiFiles are the files that a cluster's identity may consist of, each with
// the one that must come with it.
func pkiFiles() map[string]string {
	return map[string]string{
		"ca.crt": "ca.key", "ca.key": "ca.crt",
		"etcd/ca.crt": "etcd/ca.key", "etcd/ca.key": "etcd/ca.crt",
		"front-proxy-ca.crt": "front-proxy-ca.key", "front-proxy-ca.key": "front-proxy-ca.crt",
		"sa.key": "", "sa.pub": "sa.key",
	}
}

// pki checks the identity that is given to a first control plane. Errors never
// hold any of it.
func (v *validator) pki() {
	files := v.node.Init.PKI
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := "init.pki." + name
		partner, known := pkiFiles()[name]
		if !known {
			v.bad(at, fmt.Sprintf("%q is no file of a cluster's identity", printable(name)), "the files are "+list(slices.Collect(maps.Keys(pkiFiles()))))
			continue
		}
		if partner != "" && files[partner] == "" {
			v.bad(at, fmt.Sprintf("%s is there without %s", name, partner), "give both: the identity of a cluster is made as a whole (`kbuild cluster new`)")
			continue
		}
		public, err := readPKI(name, []byte(files[name].Reveal()))
		if err != nil {
			v.bad(at, fmt.Sprintf("%s: %v", name, err), "give it as `kbuild cluster userdata` prints it, in PEM, every line indented alike")
			continue
		}
		if partner == "" || strings.HasSuffix(name, ".key") {
			continue // compared with the other half at its place
		}
		// A partner that cannot be read is told of at its own place.
		if other, err := readPKI(partner, []byte(files[partner].Reveal())); err == nil && !public.Equal(other) {
			v.bad(at, fmt.Sprintf("%s and %s are no pair", name, partner), "give the key that belongs to the certificate")
		}
	}
}

// publicKey is what every public key of the standard library is.
type publicKey interface{ Equal(x crypto.PublicKey) bool }

// readPKI returns the public key that a file of a cluster's identity stands
// for.
func readPKI(name string, b []byte) (publicKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("there is no PEM in it")
	}
	var key any
	var err error
	switch block.Type {
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			if !c.IsCA {
				return nil, errors.New("it is the certificate of no authority")
			}
			key = c.PublicKey
		}
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM of type %q is not expected here", printable(block.Type))
	}
	if err != nil {
		return nil, errors.New("its PEM holds no usable key or certificate") // the parser's own words may quote it
	}
	kind, want := "private key", map[string]string{".crt": "certificate", ".key": "private key", ".pub": "public key"}[name[len(name)-4:]]
	var public any
	switch k := key.(type) {
	case *rsa.PrivateKey:
		public = k.Public()
	case *ecdsa.PrivateKey:
		public = k.Public()
	default:
		public, kind = key, "public key"
		if block.Type == "CERTIFICATE" {
			kind = "certificate"
		}
	}
	p, ok := public.(publicKey)
	if kind != want || !ok {
		return nil, fmt.Errorf("it must hold a %s", want)
	}
	return p, nil
}
