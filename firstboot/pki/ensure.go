package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

const (
	keyMode  = 0o600
	certMode = 0o644
)

// state is what there is of a table on a disk.
type state struct {
	dir   string
	table []Cert
	have  map[string]pair // by Base
	sa    saKeys
}

// Ensure makes what is missing of the table and of the service-account key
// pair, after it has judged what is there. Keys are made side by side, since
// they are what takes the time; files are written in the table's order, each
// key before its certificate, so that a cut leaves a key that the next run
// goes on with.
func Ensure(ctx context.Context, h *host.Host, n *config.Node, rel images.Release, clock Clock) error {
	return ensure(ctx, h, n, rel, clock, func(string) bool { return true })
}

// EnsureCA is Ensure for the cluster's authority alone. It judges the whole
// table, so that no second authority is made where certificates of a first
// one are.
func EnsureCA(ctx context.Context, h *host.Host, n *config.Node, rel images.Release, clock Clock) error {
	return ensure(ctx, h, n, rel, clock, func(base string) bool { return base == CA })
}

// ensure is Ensure for the rows that are wanted.
func ensure(ctx context.Context, h *host.Host, n *config.Node, rel images.Release, clock Clock, wanted func(base string) bool) error {
	s, err := judge(h, n, rel, clock.now())
	if err != nil {
		return err
	}
	keyless := slices.DeleteFunc(s.keyless(), func(base string) bool { return !wanted(base) })
	keys, err := makeKeys(ctx, keyless, Algorithm(n, rel))
	if err != nil {
		return err
	}
	for _, c := range s.table {
		p := s.have[c.Base]
		if p.cert != nil || !wanted(c.Base) {
			continue
		}
		if p.key == nil {
			p.key = keys[c.Base]
			if err := writeKey(h, c.KeyPath(s.dir), p.key); err != nil {
				return err
			}
		}
		if p.cert, err = issue(h, s.dir, c, p.key, s.have[c.CA], clock); err != nil {
			return err
		}
		s.have[c.Base] = p
	}
	if !wanted(SAKey) {
		return nil
	}
	return s.sa.ensure(h, s.dir, keys[SAKey])
}

// HasCA says whether the cluster's authority is there. What is there and not
// valid is an error.
func HasCA(h *host.Host, n *config.Node, rel images.Release, clock Clock) (bool, error) {
	s, err := judge(h, n, rel, clock.now())
	if err != nil {
		return false, err
	}
	return s.have[CA].cert != nil, nil
}

// Complete says whether nothing is missing. What is there and not valid is an
// error.
func Complete(h *host.Host, n *config.Node, rel images.Release, clock Clock) (bool, error) {
	s, err := judge(h, n, rel, clock.now())
	if err != nil {
		return false, err
	}
	for _, c := range s.table {
		if s.have[c.Base].cert == nil {
			return false, nil
		}
	}
	return s.sa.private != nil && s.sa.public, nil
}

// judge loads every row and checks it. Afterwards each row is whole, or may be
// made. A certificate that has expired counts as missing where its authority
// can sign it again: nobody logs in to remove it. A certificate without its key
// is only allowed to an authority that
// lives elsewhere (external CA), and then all that it signs must be there.
func judge(h *host.Host, n *config.Node, rel images.Release, now time.Time) (*state, error) {
	table, err := Table(n, rel)
	if err != nil {
		return nil, err
	}
	s := &state{dir: n.Cluster.CertificatesDir, table: table, have: map[string]pair{}}
	for _, c := range table {
		if s.have[c.Base], err = load(h, s.dir, c); err != nil {
			return nil, err
		}
	}
	for _, c := range table {
		err := s.judge(c, now)
		if e, ok := errors.AsType[expired](err); ok && s.have[c.CA].key != nil {
			h.Log.Info("a certificate has expired and is made again", slog.String("file", c.CrtPath(s.dir)), slog.Time("expired", e.end))
			s.have[c.Base] = pair{key: s.have[c.Base].key}
		} else if err != nil {
			return nil, err
		}
	}
	s.sa, err = loadSA(h, s.dir)
	if err != nil {
		return nil, err
	}
	if ca := s.have[CA]; ca.cert != nil && ca.key == nil && s.sa.private == nil {
		return nil, fmt.Errorf("cannot go on without %s: the cluster's authority has no key here (external CA), and kubeadm makes no service-account keys then; put %s and %s in place",
			path.Join(s.dir, SAKey), SAKey, SAPub)
	}
	return s, nil
}

// judge checks one row.
func (s *state) judge(c Cert, now time.Time) error {
	p, ca := s.have[c.Base], s.have[c.CA]
	crt, key, caCrt := c.CrtPath(s.dir), c.KeyPath(s.dir), path.Join(s.dir, c.CA+".crt")
	switch {
	case p.cert == nil && c.CA != "" && ca.cert != nil && ca.key == nil:
		return fmt.Errorf("cannot make %s: its authority %s has no key here (external CA); put %s and %s in place", crt, caCrt, crt, key)
	case p.cert == nil:
		return nil // to be made; a key alone is used
	case c.CA != "" && p.key == nil:
		return fmt.Errorf("%s is there without its key %s; put the key in place, or remove the certificate to have both made", crt, key)
	case c.CA != "" && ca.cert == nil:
		return fmt.Errorf("%s is there without its authority %s; put the authority in place, or remove the certificate", crt, caCrt)
	}
	if err := valid(c, p.cert, ca.cert, now); err != nil {
		return invalid(crt, err)
	}
	return nil
}

// keyless names the rows for which a key must be made.
func (s *state) keyless() []string {
	var bases []string
	for _, c := range s.table {
		if p := s.have[c.Base]; p.cert == nil && p.key == nil {
			bases = append(bases, c.Base)
		}
	}
	if s.sa.private == nil {
		bases = append(bases, SAKey)
	}
	return bases
}

// makeKeys makes a key for each name, on all processors.
func makeKeys(ctx context.Context, names []string, algorithm string) (map[string]crypto.Signer, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	var mu sync.Mutex
	keys := map[string]crypto.Signer{}
	for _, name := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			k, err := newKey(algorithm)
			if err != nil {
				return fmt.Errorf("cannot make a key: %w", err)
			}
			mu.Lock()
			defer mu.Unlock()
			keys[name] = k
			return nil
		})
	}
	return keys, g.Wait()
}

func writeKey(h *host.Host, file string, k crypto.Signer) error {
	b, err := encodeKey(k)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return h.WriteFile(file, b, keyMode)
}

// issue signs and writes the certificate of c.
func issue(h *host.Host, dir string, c Cert, key crypto.Signer, ca pair, clock Clock) (*x509.Certificate, error) {
	var der []byte
	var err error
	if c.CA == "" {
		der, err = selfSign(c, key, clock)
	} else {
		der, err = sign(c, key.Public(), ca.cert, ca.key, clock)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot sign %s: %w", c.CrtPath(dir), err)
	}
	if err := h.WriteFile(c.CrtPath(dir), encodeCert(der), certMode); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
