package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// pair is a certificate and its key as they lie on disk; either may be
// missing.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// load reads the files of c. A file that is not there is no error; one that
// cannot be understood, or a key that is not the certificate's, is.
func load(h *host.Host, dir string, c Cert) (pair, error) {
	var p pair
	b, err := h.ReadFile(c.CrtPath(dir))
	if err == nil {
		certs, err := parseCerts(b)
		if err != nil {
			return p, invalid(c.CrtPath(dir), err)
		}
		p.cert = certs[0]
	} else if !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("cannot read %s: %w", c.CrtPath(dir), err)
	}
	b, err = h.ReadFile(c.KeyPath(dir))
	if err == nil {
		if p.key, err = parseKey(b); err != nil {
			return p, invalid(c.KeyPath(dir), err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("cannot read %s: %w", c.KeyPath(dir), err)
	}
	if p.cert != nil && p.key != nil && !samePublic(p.cert.PublicKey, p.key.Public()) {
		return p, invalid(c.CrtPath(dir), fmt.Errorf("%s is another key's", c.KeyPath(dir)))
	}
	return p, nil
}

// invalid is the error of a file that is there and not valid. One that begins in
// the future is right as soon as the clock is: on a machine without a battery
// that is when the network has told the time.
func invalid(file string, why error) error {
	err := fmt.Errorf("%s is there and not valid: %w; put a valid one in its place, or remove it to have it made", file, why)
	if _, early := errors.AsType[notYet](why); early {
		return outcome.Retry{After: 5 * time.Second, Why: "the right time: " + err.Error()}
	}
	return err
}

// notYet is the error of a certificate that begins in the future.
type notYet struct{ begins, now time.Time }

func (e notYet) Error() string {
	return fmt.Sprintf("it is valid from %s on, and the clock shows %s", e.begins.UTC().Format(time.RFC3339), e.now.UTC().Format(time.RFC3339))
}

// expired is the error of a certificate that is right but for its end.
type expired struct{ end time.Time }

func (e expired) Error() string { return "it expired on " + e.end.Format(time.RFC3339) }

// valid judges a certificate that is there: it is its signer's, has the names
// and uses that it must have, and is in force.
func valid(c Cert, got, ca *x509.Certificate, now time.Time) error {
	if now.Before(got.NotBefore) {
		return notYet{got.NotBefore, now}
	}
	at, end := now, error(nil)
	if now.After(got.NotAfter) {
		at, end = got.NotAfter, expired{got.NotAfter}
	}
	if c.CA == "" {
		if !got.IsCA {
			return errors.New("it is not an authority's")
		}
		return end
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := got.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: c.Usages}); err != nil {
		return err
	}
	for _, u := range c.Usages {
		if !slices.Contains(got.ExtKeyUsage, u) && !slices.Contains(got.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return errors.New("its extended key usages are not enough")
		}
	}
	for _, name := range c.DNS {
		if got.VerifyHostname(name) != nil { // a wildcard is a name, too
			return fmt.Errorf("it does not hold the name %s", name)
		}
	}
	for _, ip := range c.IPs {
		if !slices.ContainsFunc(got.IPAddresses, ip.Equal) {
			return fmt.Errorf("it does not hold the address %s", ip)
		}
	}
	return end
}
