package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const testToken = config.Secret("abcdef.0123456789abcdef")

// stranger is an API server that nobody trusts yet, and the authority of its
// certificate.
type stranger struct {
	*httptest.Server
	ca   *x509.Certificate
	info map[string]string // what its cluster-info holds
	code int               // what it answers; 0 is 200
	auth string            // the credentials that it wants to see
}

// newStranger starts one whose certificate is valid between two times. It holds
// a good cluster-info.
func newStranger(t *testing.T, from, to time.Time) *stranger {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(tmpl, parent *x509.Certificate) *x509.Certificate {
		tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(1), from, to
		if parent == nil {
			parent = tmpl
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s := &stranger{}
	s.ca = make(&x509.Certificate{Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	leaf := make(&x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, s.ca)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if auth := req.Header.Get("Authorization"); req.URL.Path != infoPath || auth != s.auth {
			t.Errorf("a request for %s, with credentials %q", req.URL.Path, auth)
		}
		w.Header().Set("Content-Type", "application/json")
		if s.code != 0 {
			w.WriteHeader(s.code)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": s.info})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	s.info = signed(t, kubeconfigOf(s.ca, s.URL), testToken)
	return s
}

func kubeconfigOf(ca *x509.Certificate, server string) string {
	data := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
	return "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster: {server: \"" + server + "\", certificate-authority-data: " + data + "}\n"
}

func signed(t *testing.T, content string, token config.Secret) map[string]string {
	t.Helper()
	sig, err := SignInfo(content, token)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := TokenID(token)
	return map[string]string{"kubeconfig": content, signaturePrefix + id: sig}
}

func (s *stranger) discovery() *config.BootstrapTokenDiscovery {
	return &config.BootstrapTokenDiscovery{Token: testToken, APIServerEndpoint: strings.TrimPrefix(s.URL, "https://"), CACertHashes: []string{Pin(s.ca)}}
}

func TestDiscoverByToken(t *testing.T) {
	now := time.Now()
	good := func(t *testing.T) *stranger { return newStranger(t, now.Add(-time.Hour), now.Add(time.Hour)) }
	s := good(t)
	found, err := DiscoverByToken(context.Background(), s.discovery(), now)
	if err != nil || found.Server != s.URL || len(parseCerts(found.CA)) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	for name, c := range map[string]struct {
		spoil func(s *stranger, d *config.BootstrapTokenDiscovery)
		want  string
		mends bool
	}{
		"nobody listens": {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.Close() }, "no API server answers", true},
		"not there yet":  {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.code = 404 }, "has no ConfigMap cluster-info yet", true},
		"not allowed":    {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.code = 403 }, "does not let anybody read", true},
		"overloaded":     {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.code = 503 }, "503 Service Unavailable", true},
		"redirected":     {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.code = 302 }, "302 Found", true},
		"empty":          {func(s *stranger, d *config.BootstrapTokenDiscovery) { delete(s.info, "kubeconfig") }, "holds no kubeconfig", false},
		"token expired":  {func(s *stranger, d *config.BootstrapTokenDiscovery) { delete(s.info, signaturePrefix+"abcdef") }, "the token has expired", true},
		"other secret":   {func(s *stranger, d *config.BootstrapTokenDiscovery) { d.Token = "abcdef.ffffffffffffffff" }, "forged", false},
		"forged content": {func(s *stranger, d *config.BootstrapTokenDiscovery) { s.info["kubeconfig"] += "\n" }, "forged", false},
		"wrong pin":      {func(s *stranger, d *config.BootstrapTokenDiscovery) { d.CACertHashes = []string{"sha256:00"} }, "not the pinned one: it is sha256:", false},
		"another server under the same cluster-info": {func(s *stranger, d *config.BootstrapTokenDiscovery) {
			other := good(t)
			s.info = signed(t, kubeconfigOf(other.ca, other.URL), testToken)
			d.CACertHashes = []string{Pin(other.ca)}
		}, "is not the cluster's API server", false},
		"name not in the certificate": {func(s *stranger, d *config.BootstrapTokenDiscovery) {
			d.APIServerEndpoint = strings.Replace(d.APIServerEndpoint, "127.0.0.1", "localhost", 1)
		}, "apiServerCertSANs", false},
		"no authority": {func(s *stranger, d *config.BootstrapTokenDiscovery) {
			s.info = signed(t, "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"https://x\"}}]\n", testToken)
		}, "no certificate authority", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := good(t)
			d := s.discovery()
			c.spoil(s, d)
			_, err := DiscoverByToken(context.Background(), d, now)
			if kind := kindOf(err); !strings.Contains(fmt.Sprint(err), c.want) || kind != kindIf(c.mends) {
				t.Errorf("%v (%s), want one with %q (%s)", err, kind, c.want, kindIf(c.mends))
			}
			if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

// A clock that is years off is told apart from a certificate that is wrong.
func TestDiscoverClock(t *testing.T) {
	now := time.Now()
	s := newStranger(t, now.Add(-time.Hour), now.Add(time.Hour))
	for want, clock := range map[string]time.Time{"is valid from": now.AddDate(-5, 0, 0), "expired on": now.AddDate(5, 0, 0)} {
		_, err := DiscoverByToken(context.Background(), s.discovery(), clock)
		if kindOf(err) != "retry" || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "clock") {
			t.Errorf("a clock at %s: %v", clock, err)
		}
	}
}

// Without a pin the token's signature is all that counts.
func TestDiscoverUnsafe(t *testing.T) {
	now := time.Now()
	s := newStranger(t, now.Add(-time.Hour), now.Add(time.Hour))
	d := s.discovery()
	d.CACertHashes, d.UnsafeSkipCAVerification = nil, true
	if _, err := DiscoverByToken(context.Background(), d, now); err != nil {
		t.Error(err)
	}
	s.info["kubeconfig"] += " "
	if _, err := DiscoverByToken(context.Background(), d, now); err == nil {
		t.Error("a forged cluster-info is taken")
	}
}

// openssl judges the signature.
func TestSignature(t *testing.T) {
	sig, err := SignInfo("content", testToken)
	// printf HEADER.Y29udGVudA | openssl dgst -sha256 -hmac 0123456789abcdef
	if want := "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4"; err != nil || sig != want {
		t.Errorf("%s, %v", sig, err)
	}
	for bad, token := range map[string]config.Secret{
		sig: "abcdeg.0123456789abcdef", sig + "A": testToken, "": testToken, "..": testToken, "a.b.c": testToken,
		strings.Replace(sig, "..", ".Y29udGVudA.", 1): testToken,
		"eyJhbGciOiJub25lIiwia2lkIjoiYWJjZGVmIn0..":   testToken, // alg none
	} {
		if err := verifyInfo(bad, "content", token); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzInfo feeds a stranger's cluster-info: whatever it holds, only what is
// signed is taken, and then it names a server and an authority.
func FuzzInfo(f *testing.F) {
	good, err := SignInfo("apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"https://x\", certificate-authority-data: LS0t}}]\n", testToken)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"https://x\", certificate-authority-data: LS0t}}]\n", good, true)
	f.Add("clusters: [", "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..", false)
	f.Add("", "..", true)
	f.Fuzz(func(t *testing.T, kubeconfig, signature string, sign bool) {
		if sign {
			signature, _ = SignInfo(kubeconfig, testToken)
		}
		d := &config.BootstrapTokenDiscovery{Token: testToken}
		found, err := trustInfo(map[string]string{"kubeconfig": kubeconfig, signaturePrefix + "abcdef": signature}, d)
		if err == nil && (verifyInfo(signature, kubeconfig, testToken) != nil || !strings.HasPrefix(found.Server, "https://") || len(parseCerts(found.CA)) == 0) {
			t.Errorf("taken: %q %q %+v", kubeconfig, signature, found)
		}
		if err != nil && kindOf(err) == "neither" {
			t.Errorf("an error that is no outcome: %v", err)
		}
	})
}

// kindOf is the outcome that an error is: "retry", "refused", or "neither". Each
// of the two must say what to do.
func kindOf(err error) string {
	if again, ok := errors.AsType[outcome.Retry](err); ok && again.After > 0 && strings.Contains(again.Why, "; ") {
		return "retry"
	}
	if r, ok := errors.AsType[outcome.Refused](err); ok && r.Why != "" && r.Remedy != "" {
		return "refused"
	}
	return "neither"
}

func kindIf(mends bool) string {
	if mends {
		return "retry"
	}
	return "refused"
}
