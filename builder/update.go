package builder

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// readChecks reads the programs to bake that judge a new slot.
func (p *Plan) readChecks() error {
	for _, file := range p.Spec.Checks {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cannot read --check: %w", err)
		}
		if !strings.HasPrefix(string(data), "#!") && !strings.HasPrefix(string(data), "\x7fELF") {
			return fmt.Errorf("cannot bake check %s: it is no program: want one that begins with #!, or an ELF file", file)
		}
		p.checks[filepath.Base(file)] = data
	}
	return nil
}

// readKeys reads the key that signs the update and those that nodes of this
// image check updates with, and sees to it that those for Secure Boot are a
// pair.
func (p *Plan) readKeys() error {
	if file := p.Spec.SignKey; file != "" {
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
		p.sign = own
		p.baked.UpdateKeys = append(p.baked.UpdateKeys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	if p.Spec.SecureBootKey != "" {
		var err error
		if p.identity, err = tls.LoadX509KeyPair(p.Spec.SecureBootCert, p.Spec.SecureBootKey); err != nil {
			return fmt.Errorf("cannot sign for Secure Boot with key %s and certificate %s: %w", p.Spec.SecureBootKey, p.Spec.SecureBootCert, err)
		}
	}
	for _, file := range p.Spec.UpdateKeys {
		block, err := readPEM("--update-key", file, "PUBLIC KEY")
		if err != nil {
			return err
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if _, ok := key.(ed25519.PublicKey); err != nil || !ok {
			return fmt.Errorf("cannot use --update-key %s: want the public half of an Ed25519 key, as `openssl pkey -pubout` writes it", file)
		}
		p.baked.UpdateKeys = append(p.baked.UpdateKeys, string(pem.EncodeToMemory(block)))
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

// writeUpdate writes what the slot's files in dir are.
func (p *Plan) writeUpdate(dir, rootHash string) error {
	u := images.Update{Kbuild: p.Kbuild, Arch: p.Spec.Arch, BuildTime: p.Spec.Epoch, Release: p.Release, RootHash: rootHash, TrialBoots: p.Spec.TrialBoots, SecureBoot: p.Spec.SecureBootKey != ""}
	for what, part := range map[string]*images.Part{images.UpdateRoot: &u.Root, images.UpdateVerity: &u.Verity, images.UpdateUKI: &u.UKI} {
		f, err := outputFile(dir, images.UpdateName(p.Spec.Version, rootHash, what))
		if err != nil {
			return err
		}
		*part = images.Part(f)
	}
	b, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, images.UpdateFile), append(b, '\n'), 0o644)
}
