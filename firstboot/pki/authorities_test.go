package pki

import (
	"context"
	"errors"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/firstboot/config"
)

// What is made beforehand is what a first control plane takes for its own: it
// makes the rest and changes nothing.
func TestAuthorities(t *testing.T) {
	h, n, rel := machine(t), testNode(), release(t)
	files, err := Authorities(t.Context(), n, release(t), clock)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("made %q", got)
	}
	for name, b := range files {
		put(t, h, path.Join(dir, name), b)
	}
	if err := ensureAll(h, n, rel, clock); err != nil {
		t.Fatal(err)
	}
	all := contents(t, h)
	if len(all) != 22+4 {
		t.Errorf("%d files", len(all))
	}
	for name, b := range files {
		if all[path.Join(dir, name)] != string(b) {
			t.Errorf("%s was changed", name)
		}
	}
	// Subject and life are those of Ensure, which the oracle compares with
	// kubeadm's.
	own := machine(t)
	if err := Ensure(t.Context(), own, n, release(t), clock); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{CA, EtcdCA, FrontProxyCA} {
		a, err := parseCerts(files[base+".crt"])
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseCerts([]byte(contents(t, own)[path.Join(dir, base+".crt")]))
		if err != nil {
			t.Fatal(err)
		}
		if a[0].Subject.String() != b[0].Subject.String() || !a[0].NotBefore.Equal(b[0].NotBefore) || !a[0].NotAfter.Equal(b[0].NotAfter) || a[0].KeyUsage != b[0].KeyUsage {
			t.Errorf("%s: %v %v–%v, Ensure makes %v %v–%v", base, a[0].Subject, a[0].NotBefore, a[0].NotAfter, b[0].Subject, b[0].NotBefore, b[0].NotAfter)
		}
	}
}

// An external etcd has its own authority.
func TestAuthoritiesExternalEtcd(t *testing.T) {
	n := testNode()
	n.Cluster.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://192.0.2.1:2379"}}}
	files, err := Authorities(t.Context(), n, release(t), clock)
	if err != nil || len(files) != 6 || files["etcd/ca.crt"] != nil {
		t.Errorf("%d files, %v", len(files), err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Authorities(stopped, n, release(t), clock); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func TestIssue(t *testing.T) {
	n, rel := testNode(), release(t)
	files, err := Authorities(t.Context(), n, release(t), clock)
	if err != nil {
		t.Fatal(err)
	}
	admin := Kubeconfigs(n, rel)[0]
	crt, key := files["ca.crt"], files["ca.key"]
	for life, want := range map[time.Duration]time.Duration{0: 365 * 24 * time.Hour, time.Hour: time.Hour} {
		b, err := admin.Issue(n, crt, key, life, clock)
		if err != nil {
			t.Fatal(err)
		}
		ca, err := parseCerts(crt)
		if err != nil {
			t.Fatal(err)
		}
		if server, err := judgeKubeconfig(b, ca[0], testTime); err != nil || server != admin.Server {
			t.Errorf("server %q, %v", server, err)
		}
		c, err := clientcmd.Load(b)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := parseCerts(c.AuthInfos["kubernetes-admin"].ClientCertificateData)
		if err != nil || !certs[0].NotAfter.Equal(testTime.Add(want)) || certs[0].Subject.String() != "CN=kubernetes-admin,O=system:masters" {
			t.Errorf("life %v: %v until %v, %v", life, certs[0].Subject, certs[0].NotAfter, err)
		}
	}
	other, err := Authorities(t.Context(), n, release(t), clock)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		crt, key []byte
		life     time.Duration
		clock    Clock
		want     string
	}{
		"too long":        {crt, key, 11 * year, clock, "ask for less"},
		"negative":        {crt, key, -time.Hour, clock, "not longer than zero"},
		"expired":         {crt, key, 0, Clock{Now: testTime.AddDate(11, 0, 0)}, "expired"},
		"another's key":   {crt, other["ca.key"], 0, clock, "another"},
		"no certificate":  {nil, key, 0, clock, "no PEM certificate"},
		"no key":          {crt, []byte("x"), 0, clock, "no PEM private key"},
		"public key only": {crt, files["sa.pub"], 0, clock, "private key"},
	} {
		if _, err := admin.Issue(n, c.crt, c.key, c.life, c.clock); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The judge is openssl, the way kubeadm's documentation does it.
func TestPins(t *testing.T) {
	files, err := Authorities(t.Context(), testNode(), release(t), clock)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := Pins(append(files["ca.crt"], files["etcd/ca.crt"]...))
	if err != nil || len(pins) != 2 || pins[0] == pins[1] {
		t.Fatalf("%q, %v", pins, err)
	}
	if _, err := Pins([]byte("nothing")); err == nil {
		t.Error("no certificate, and no error")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl to judge the pin")
	}
	cmd := exec.Command("sh", "-c", "openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -hex")
	cmd.Stdin = strings.NewReader(string(files["ca.crt"]))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	hex := strings.TrimPrefix(pins[0], "sha256:")
	if !strings.HasSuffix(strings.TrimSpace(string(out)), " "+hex) || len(hex) != 64 {
		t.Errorf("openssl: %s\nwe: %s", out, pins[0])
	}
}
