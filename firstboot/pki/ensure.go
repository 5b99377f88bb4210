package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// Ensure makes what is missing of the table and of the service-account key
// pair, after it has judged what is there. Keys are made side by side, since
// they are what takes the time; files are written in the table's order, each
// key before its certificate, so that a cut leaves a key that the next run
// goes on with.
func Ensure(ctx context.Context, h *host.Host, n *config.Node, now time.Time) error {
	dir := n.Cluster.CertificatesDir
	table, err := Table(n)
	if err != nil {
		return err
	}
	have, err := judge(h, dir, table, now)
	if err != nil {
		return err
	}
	keys, saKey, err := makeKeys(ctx, h, dir, have)
	if err != nil {
		return err
	}
	for _, c := range table {
		p := have[c.Base]
		if p.cert != nil {
			continue
		}
		if k, ok := keys[c.Base]; ok {
			p.key = k.signer
			if err := h.WriteFile(c.KeyPath(dir), k.pem, 0o600); err != nil {
				return err
			}
		}
		if p.cert, err = issue(h, dir, c, p.key, have[c.CA], now); err != nil {
			return err
		}
		have[c.Base] = p
	}
	return ensureServiceAccount(h, dir, saKey)
}

// Complete says whether nothing is missing. What is there and not valid is an
// error.
func Complete(h *host.Host, n *config.Node, now time.Time) (bool, error) {
	dir := n.Cluster.CertificatesDir
	table, err := Table(n)
	if err != nil {
		return false, err
	}
	have, err := judge(h, dir, table, now)
	if err != nil {
		return false, err
	}
	for _, c := range table {
		if have[c.Base].cert == nil {
			return false, nil
		}
	}
	return h.Exists(path.Join(dir, SAKey)) && h.Exists(path.Join(dir, SAPub)), nil
}

// judge loads every row and checks it. Afterwards each row is whole, or may be
// made: a certificate without its key is only allowed to an authority that
// lives elsewhere (external CA), and then all that it signs must be there.
func judge(h *host.Host, dir string, table []Cert, now time.Time) (map[string]pair, error) {
	have := map[string]pair{}
	for _, c := range table {
		p, err := load(h, dir, c)
		if err != nil {
			return nil, err
		}
		have[c.Base] = p
	}
	for _, c := range table {
		p, ca := have[c.Base], have[c.CA]
		crt, key, caCrt := c.CrtPath(dir), c.KeyPath(dir), path.Join(dir, c.CA+".crt")
		switch {
		case p.cert == nil && c.CA != "" && ca.cert != nil && ca.key == nil:
			return nil, fmt.Errorf("cannot make %s: its authority %s has no key here (external CA); put %s and %s in place", crt, caCrt, crt, key)
		case p.cert == nil:
			continue // to be made; a key alone is used
		case c.CA != "" && p.key == nil:
			return nil, fmt.Errorf("%s is there without its key %s; put the key in place, or remove the certificate to have both made", crt, key)
		case c.CA != "" && ca.cert == nil:
			return nil, fmt.Errorf("%s is there without its authority %s; put the authority in place, or remove the certificate", crt, caCrt)
		}
		if err := valid(c, p.cert, ca.cert, now); err != nil {
			return nil, invalid(crt, err)
		}
	}
	return have, nil
}

// madeKey is a key that this run made.
type madeKey struct {
	signer crypto.Signer
	pem    []byte
}

// makeKeys makes a key for each row that has neither certificate nor key, and
// one for the service accounts (nil where there is one).
func makeKeys(ctx context.Context, h *host.Host, dir string, have map[string]pair) (map[string]madeKey, []byte, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	type result struct {
		base string
		key  madeKey
	}
	results := make(chan result, len(have)+1)
	gen := func(base string) {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			k, err := newKey()
			if err != nil {
				return fmt.Errorf("cannot make a key: %w", err)
			}
			results <- result{base, madeKey{k, encodeKey(k)}}
			return nil
		})
	}
	for base, p := range have {
		if p.cert == nil && p.key == nil {
			gen(base)
		}
	}
	if !h.Exists(path.Join(dir, SAKey)) {
		gen(SAKey)
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	close(results)
	keys := map[string]madeKey{}
	for r := range results {
		keys[r.base] = r.key
	}
	sa := keys[SAKey].pem
	delete(keys, SAKey)
	return keys, sa, nil
}

// issue signs and writes the certificate of c.
func issue(h *host.Host, dir string, c Cert, key crypto.Signer, ca pair, now time.Time) (*x509.Certificate, error) {
	var der []byte
	var err error
	if c.CA == "" {
		der, err = selfSign(c, key, now)
	} else {
		der, err = sign(c, key.Public(), ca.cert, ca.key, now)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot sign %s: %w", c.CrtPath(dir), err)
	}
	if err := h.WriteFile(c.CrtPath(dir), encodeCert(der), 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// ensureServiceAccount writes the service-account key, if made is not nil, and
// its public half where that is missing.
func ensureServiceAccount(h *host.Host, dir string, made []byte) error {
	file := path.Join(dir, SAKey)
	if made != nil {
		if err := h.WriteFile(file, made, 0o600); err != nil {
			return err
		}
	}
	b, err := h.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	key, err := parseKey(b)
	if err != nil {
		return invalid(file, err)
	}
	pub, err := encodePublic(key.Public())
	if err != nil {
		return err
	}
	if _, err := h.ReadFile(path.Join(dir, SAPub)); !errors.Is(err, fs.ErrNotExist) {
		return err // there, and the API server may trust more keys in it than ours
	}
	return h.WriteFile(path.Join(dir, SAPub), pub, 0o644)
}
