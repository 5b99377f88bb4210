package pki

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/kbuild/kbuild/firstboot/host"
)

// saKeys are the keys that sign service-account tokens, as they lie on disk.
type saKeys struct {
	private crypto.Signer // nil where there is none
	public  bool          // sa.pub is there, and holds the private key's half
}

// loadSA reads and judges both files. The API server may trust more keys than
// ours, so sa.pub may hold several; one that lacks ours, or that is alone, is
// an error.
func loadSA(h *host.Host, dir string) (saKeys, error) {
	var s saKeys
	file, pub := path.Join(dir, SAKey), path.Join(dir, SAPub)
	b, err := h.ReadFile(file)
	if err == nil {
		if s.private, err = parseKey(b); err != nil {
			return s, invalid(file, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("cannot read %s: %w", file, err)
	}
	b, err = h.ReadFile(pub)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("cannot read %s: %w", pub, err)
	}
	if s.private == nil {
		return s, fmt.Errorf("%s is there without its key %s; put the key in place, or remove %s to have both made", pub, file, pub)
	}
	keys, err := parsePublics(b)
	if err != nil {
		return s, invalid(pub, err)
	}
	if !slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { return samePublic(k, s.private.Public()) }) {
		return s, invalid(pub, fmt.Errorf("the public half of %s is not in it", file))
	}
	s.public = true
	return s, nil
}

// ensure writes what is missing: made, if there was no key, and the public
// half. kubeadm gives both mode 0600.
func (s saKeys) ensure(h *host.Host, dir string, made crypto.Signer) error {
	if s.private == nil {
		s.private = made
		if err := writeKey(h, path.Join(dir, SAKey), made); err != nil {
			return err
		}
	}
	if s.public {
		return nil
	}
	pub, err := encodePublic(s.private.Public())
	if err != nil {
		return err
	}
	return h.WriteFile(path.Join(dir, SAPub), pub, keyMode)
}
