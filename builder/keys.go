package builder

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/kbuild/kbuild/builder/disk"
)

// readKeys reads the key that signs the update and those that nodes of this
// image check updates with, and makes sure that those for Secure Boot are a
// pair.
func (f *files) readKeys(s Spec) error {
	if file := s.SignKey; file != "" {
		block, err := readPEM("--sign-key", file, "PRIVATE KEY")
		if err != nil {
			return err
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		own, ok := key.(ed25519.PrivateKey)
		if err != nil || !ok {
			return fmt.Errorf("cannot use --sign-key %s: want an Ed25519 key, as `openssl genpkey -algorithm ed25519` makes", file)
		}
		der, err := x509.MarshalPKIXPublicKey(own.Public())
		if err != nil {
			return err
		}
		f.inputs.sign = own
		f.keys = append(f.keys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	if s.SecureBootKey != "" {
		pair, err := tls.LoadX509KeyPair(s.SecureBootCert, s.SecureBootKey)
		if err != nil {
			return fmt.Errorf("cannot sign for Secure Boot with key %s and certificate %s: %w", s.SecureBootKey, s.SecureBootCert, err)
		}
		f.cert = bytes.Join(pair.Certificate, nil)
		f.inputs.secureBoot = &disk.SecureBoot{Key: s.SecureBootKey, Cert: s.SecureBootCert}
	}
	for _, file := range s.UpdateKeys {
		block, err := readPEM("--update-key", file, "PUBLIC KEY")
		if err != nil {
			return err
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if _, ok := key.(ed25519.PublicKey); err != nil || !ok {
			return fmt.Errorf("cannot use --update-key %s: want the public half of an Ed25519 key, as `openssl pkey -pubout` writes it", file)
		}
		f.keys = append(f.keys, string(pem.EncodeToMemory(block)))
	}
	return nil
}

func readPEM(flag, file, kind string) (*pem.Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", flag, err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, errors.New("cannot use " + flag + " " + file + ": want PEM, -----BEGIN " + kind + "-----")
	}
	return block, nil
}
