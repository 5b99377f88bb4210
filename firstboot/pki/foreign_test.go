package pki

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// foreign are PKIs that somebody else made, in whole or in part. want is part
// of the error; where it is empty, what was brought is kept and completed.
var foreign = map[string]struct {
	bring func(m brought)
	want  string
}{
	"only authorities": {bring: func(m brought) {
		for _, c := range m.table() {
			if c.CA != "" {
				m.drop(c.Base+".crt", c.Base+".key")
			}
		}
		m.drop("sa.key", "sa.pub")
	}},
	"keys without certificates":   {bring: func(m brought) { m.drop("apiserver.crt", "front-proxy-client.crt", "etcd/peer.crt", "sa.pub") }},
	"RSA authority":               {bring: func(m brought) { m.authority(CA, m.key(newKey(rsa2048)), false) }},
	"RSA authority in PKCS#8":     {bring: func(m brought) { m.authority(CA, m.key(newKey(rsa2048)), true) }},
	"Ed25519 authority":           {bring: func(m brought) { m.authority(CA, m.ed25519(), true) }},
	"Ed25519 key of an authority": {bring: func(m brought) { m.authority(CA, m.ed25519(), true); m.drop("ca.crt") }},
	"text and other certificates": {bring: func(m brought) { m.put("ca.crt", "Subject: CN=kubernetes\n"+m.get("ca.crt")+m.get("etcd/ca.crt")) }},
	"more names than needed": {bring: func(m brought) {
		m.change("apiserver", CA, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "more.example.com") })
	}},
	"another subject": {bring: func(m brought) {
		m.change("etcd/server", EtcdCA, func(c *x509.Certificate) { c.Subject.CommonName = "another" })
	}},
	"any use": {bring: func(m brought) {
		m.change("etcd/peer", EtcdCA, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	}},
	"a wildcard that covers a name": {bring: func(m brought) {
		m.node.Cluster.APIServer.CertSANs = []string{"api.example.com", "*.apps.example.com"}
		m.change("apiserver", CA, func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.example.com", "*.apps.example.com") })
	}},
	"several public keys": {bring: func(m brought) { m.put("sa.pub", m.public("apiserver")+m.get("sa.pub")) }},
	"RSA public key": {bring: func(m brought) {
		key, ok := m.key(newKey(rsa2048)).(*rsa.PrivateKey)
		if !ok {
			m.t.Fatal("not RSA")
		}
		m.put("sa.key", m.encode(key, false))
		m.put("sa.pub", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})))
	}},

	"signed by another authority": {func(m brought) { m.change("apiserver-etcd-client", CA, func(*x509.Certificate) {}) },
		"apiserver-etcd-client.crt is there and not valid: x509: certificate signed by unknown authority"},
	"signed by itself": {func(m brought) { m.change("apiserver", "", func(*x509.Certificate) {}) }, "apiserver.crt is there and not valid: x509"},
	"a new authority, old certificates": {func(m brought) {
		key := m.key(newKey(ecdsaP256))
		der, err := selfSign(Cert{CN: "new", Life: 10 * year}, key, clock)
		m.must(err)
		m.put("ca.crt", string(encodeCert(der)))
		m.put("ca.key", m.encode(key, false))
	}, "is there and not valid: x509: certificate signed by unknown authority"},
	"an expired authority": {func(m brought) {
		m.change(EtcdCA, "", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = testTime.Add(-2*time.Hour), testTime.Add(-time.Hour)
		})
	}, "etcd/ca.crt is there and not valid: it expired on"},
	"half of the uses": {func(m brought) {
		m.change("etcd/peer", EtcdCA, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	},
		"etcd/peer.crt is there and not valid: its extended key usages are not enough"},
	"made before a name was configured": {func(m brought) { m.node.Cluster.APIServer.CertSANs = []string{"api.example.com"} },
		"apiserver.crt is there and not valid: it does not hold the name api.example.com"},
	"made for another address": {func(m brought) { m.node.Init.LocalAPIEndpoint.AdvertiseAddress = "192.0.2.11" },
		"apiserver.crt is there and not valid: it does not hold the address 192.0.2.11"},
	"a broken key": {func(m brought) {
		m.put("ca.key", string(pem.EncodeToMemory(&pem.Block{Type: pemRSA, Bytes: []byte("rubbish")})))
	}, "/etc/kubernetes/pki/ca.key is there and not valid"},
	"a broken service-account key": {func(m brought) { m.put("sa.key", "rubbish") }, "/etc/kubernetes/pki/sa.key is there and not valid"},
	"a directory for a certificate": {func(m brought) {
		m.drop("apiserver.crt")
		m.must(m.h.MkdirAll(dir+"/apiserver.crt", 0o755))
	}, "cannot read /etc/kubernetes/pki/apiserver.crt"},
}

// TestForeign keeps what is valid byte for byte and completes it to what x509
// verifies, and refuses the rest without a change to the disk.
func TestForeign(t *testing.T) {
	for name, c := range foreign {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := brought{t, machine(t), testNode()}
			m.must(Ensure(t.Context(), m.h, m.node, release(t), clock))
			c.bring(m)
			// Something is always left to do.
			m.drop("etcd/healthcheck-client.crt", "etcd/healthcheck-client.key")
			before := contents(t, m.h)
			err := Ensure(t.Context(), m.h, m.node, release(t), clock)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %s", err, c.want)
				}
				if !maps.Equal(before, contents(t, m.h)) {
					t.Error("files were changed")
				}
				if done, err := Complete(m.h, m.node, release(t), clock); done || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("complete: %t, %v", done, err)
				}
				return
			}
			m.must(err)
			after := contents(t, m.h)
			for file, b := range before {
				if after[file] != b {
					t.Errorf("%s was changed", file)
				}
			}
			m.judge()
			m.h.Effect = func(what string) error { t.Errorf("a second run: %s", what); return nil }
			m.must(Ensure(t.Context(), m.h, m.node, release(t), clock))
		})
	}
}

// TestKeysDiffer: RSA keys of 2048 bits, none twice.
func TestKeysDiffer(t *testing.T) {
	var names []string
	for _, c := range (brought{t, machine(t), testNode()}).table() {
		names = append(names, c.Base)
	}
	keys, err := makeKeys(context.Background(), names, rsa2048)
	if err != nil || len(keys) != len(names) {
		t.Fatalf("%d keys (%v)", len(keys), err)
	}
	seen := map[string]string{}
	for name, k := range keys {
		r, ok := k.(*rsa.PrivateKey)
		if !ok || r.N.BitLen() != 2048 {
			t.Fatalf("%s: %T", name, k)
		}
		if twin, ok := seen[r.N.String()]; ok {
			t.Errorf("%s and %s have one key", name, twin)
		}
		seen[r.N.String()] = name
	}
}

// brought is a machine whose PKI somebody meddles with; files are named below
// the certificates directory.
type brought struct {
	t    *testing.T
	h    *host.Host
	node *config.Node
}

func (m brought) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m brought) get(file string) string { return string(read(m.t, m.h, dir+"/"+file)) }

func (m brought) put(file, data string) { put(m.t, m.h, dir+"/"+file, []byte(data)) }

func (m brought) drop(files ...string) {
	m.t.Helper()
	for _, f := range files {
		if err := m.h.Root.Remove(strings.TrimPrefix(dir, "/") + "/" + f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.t.Fatal(err)
		}
	}
}

func (m brought) table() []Cert {
	m.t.Helper()
	table, err := Table(m.node, release(m.t))
	m.must(err)
	return table
}

func (m brought) load(base string) pair {
	m.t.Helper()
	p, err := load(m.h, dir, Cert{Base: base})
	m.must(err)
	if p.cert == nil || p.key == nil {
		m.t.Fatalf("%s is not whole", base)
	}
	return p
}

func (m brought) key(k crypto.Signer, err error) crypto.Signer { m.must(err); return k }

func (m brought) ed25519() crypto.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return m.key(k, err)
}

func (m brought) encode(k crypto.Signer, pkcs8 bool) string {
	m.t.Helper()
	if !pkcs8 {
		b, err := encodeKey(k)
		m.must(err)
		return string(b)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	m.must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: der}))
}

func (m brought) public(base string) string {
	m.t.Helper()
	b, err := encodePublic(m.load(base).key.Public())
	m.must(err)
	return string(b)
}

// authority puts another authority in place and takes away what the old one
// signed.
func (m brought) authority(base string, k crypto.Signer, pkcs8 bool) {
	m.t.Helper()
	der, err := selfSign(Cert{CN: "somebody's", Life: 10 * year}, k, clock)
	m.must(err)
	m.put(base+".crt", string(encodeCert(der)))
	m.put(base+".key", m.encode(k, pkcs8))
	for _, c := range m.table() {
		if c.CA == base {
			m.drop(c.Base + ".crt")
		}
	}
}

// change signs a certificate anew after a change; with no signer, itself.
func (m brought) change(base, signer string, change func(*x509.Certificate)) {
	m.t.Helper()
	p := m.load(base)
	t := *p.cert
	t.SerialNumber = big.NewInt(7)
	change(&t)
	ca := pair{&t, p.key}
	if signer != "" {
		ca = m.load(signer)
	}
	der, err := x509.CreateCertificate(rand.Reader, &t, ca.cert, p.key.Public(), ca.key)
	m.must(err)
	m.put(base+".crt", string(encodeCert(der)))
}

// judge verifies all that is on the disk with nothing but x509.
func (m brought) judge() {
	m.t.Helper()
	for _, c := range m.table() {
		p := m.load(c.Base)
		if c.CA == "" {
			if err := p.cert.CheckSignatureFrom(p.cert); err != nil {
				m.t.Errorf("%s: %v", c.Base, err)
			}
			continue
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(m.get(c.CA + ".crt")))
		for _, use := range c.Usages {
			if _, err := p.cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: testTime}); err != nil {
				m.t.Errorf("%s: %v", c.Base, err)
			}
		}
		var errs []error
		for _, name := range c.DNS {
			if !strings.HasPrefix(name, "*") {
				errs = append(errs, p.cert.VerifyHostname(name))
			}
		}
		for _, ip := range c.IPs {
			errs = append(errs, p.cert.VerifyHostname(ip.String()))
		}
		if err := errors.Join(errs...); err != nil {
			m.t.Errorf("%s: %v", c.Base, err)
		}
	}
	pubs, err := parsePublics([]byte(m.get(SAPub)))
	m.must(err)
	sa, err := parseKey([]byte(m.get(SAKey)))
	m.must(err)
	if !samePublic(pubs[len(pubs)-1], sa.Public()) {
		m.t.Error("sa.pub is another key's")
	}
}
