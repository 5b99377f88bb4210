package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/kbuild/kbuild/firstboot/config"
)

// certificateKeySize is that of AES-256.
const certificateKeySize = 32

// NewCertificateKey returns a random key for Seal, as hexadecimal text.
func NewCertificateKey() config.Secret {
	b := make([]byte, certificateKeySize)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return config.Secret(hex.EncodeToString(b))
}

// Sealer encrypts and decrypts what the Secret kubeadm-certs holds, the way
// kubeadm does: AES-GCM, the nonce in front.
type Sealer struct{ gcm cipher.AEAD }

// NewSealer takes a certificate key: hexadecimal, 32 bytes.
func NewSealer(key config.Secret) (*Sealer, error) {
	b, err := hex.DecodeString(string(key))
	if err != nil || len(b) != certificateKeySize {
		// The error of hex would hold a part of the key.
		return nil, fmt.Errorf("cannot use the certificate key: want %d hexadecimal digits; `openssl rand -hex 32` makes one", 2*certificateKeySize)
	}
	block, err := aes.NewCipher(b)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{gcm}, nil
}

// Seal encrypts plain.
func (s *Sealer) Seal(plain []byte) []byte {
	nonce := make([]byte, s.gcm.NonceSize())
	rand.Read(nonce)
	return s.gcm.Seal(nonce, nonce, plain, nil)
}

// Open decrypts what Seal returned.
func (s *Sealer) Open(sealed []byte) ([]byte, error) {
	n := s.gcm.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("cannot decrypt a certificate: the data is too short")
	}
	plain, err := s.gcm.Open(nil, sealed[:n], sealed[n:], nil)
	if err != nil {
		return nil, errors.New("cannot decrypt a certificate: the certificate key is another one, or the data is damaged")
	}
	return plain, nil
}
