package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

const dir = "/etc/kubernetes/pki"

// testNode is a first control plane. Its keys are elliptic, which takes no
// time to make; kubeadm's own are compared by the oracle.
func testNode() *config.Node {
	return &config.Node{
		Init: config.InitConfiguration{
			NodeRegistration: config.NodeRegistration{Name: "node-1"},
			LocalAPIEndpoint: config.APIEndpoint{AdvertiseAddress: "192.0.2.10", BindPort: 6443},
		},
		Cluster: config.ClusterConfiguration{
			CertificatesDir: dir, ClusterName: "kubernetes",
			Networking:   config.Networking{ServiceSubnet: "10.96.0.0/12", DNSDomain: "cluster.local"},
			Etcd:         config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}},
			FeatureGates: map[string]bool{"PublicKeysECDSA": true},
		},
	}
}

// machine is an empty disk.
func machine(t testing.TB) *host.Host {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &host.Host{Root: root, Log: slog.New(slog.DiscardHandler)}
}

var (
	testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock    = Clock{Now: testTime, Built: testTime.AddDate(0, -1, 0)}
)

func release(t testing.TB) images.Release {
	t.Helper()
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// contents are the files of a machine.
func contents(t testing.TB, h *host.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(h.Root.FS(), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := h.Root.ReadFile(file)
		all["/"+file] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t testing.TB, h *host.Host, file string, data []byte) {
	t.Helper()
	if err := h.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, h *host.Host, file string) {
	t.Helper()
	if err := h.Root.Remove(strings.TrimPrefix(file, "/")); err != nil {
		t.Fatal(err)
	}
}

func ensureAll(h *host.Host, n *config.Node, rel images.Release, c Clock) error {
	if err := Ensure(context.Background(), h, n, rel, c); err != nil {
		return err
	}
	return EnsureKubeconfigs(context.Background(), h, n, rel, c)
}

func TestValidIsKept(t *testing.T) {
	h, n, rel := machine(t), testNode(), release(t)
	if err := ensureAll(h, n, rel, clock); err != nil {
		t.Fatal(err)
	}
	before := contents(t, h)
	if len(before) != 22+4 {
		t.Errorf("%d files", len(before))
	}
	for file := range before {
		st, err := os.Stat(h.Path(file))
		if err != nil {
			t.Fatal(err)
		}
		if want := fs.FileMode(0o600); path.Ext(file) != ".crt" && st.Mode() != want {
			t.Errorf("%s has mode %v", file, st.Mode())
		}
	}
	later := Clock{Now: testTime.AddDate(0, 11, 0), Built: clock.Built}
	if err := ensureAll(h, n, rel, later); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, contents(t, h)) {
		t.Error("what was valid has been changed")
	}
	// All that is missing is made again, and only that; keys are used again.
	for _, f := range []string{"/apiserver.crt", "/etcd/peer.crt", "/etcd/peer.key", "/sa.pub"} {
		remove(t, h, dir+f)
	}
	if done, err := Complete(h, n, release(t), later); done || err != nil {
		t.Errorf("complete: %t, %v", done, err)
	}
	if err := ensureAll(h, n, rel, later); err != nil {
		t.Fatal(err)
	}
	if done, err := Complete(h, n, release(t), later); !done || err != nil {
		t.Errorf("complete: %t, %v", done, err)
	}
	for file, now := range contents(t, h) {
		made := file == dir+"/apiserver.crt" || strings.HasPrefix(file, dir+"/etcd/peer.")
		if made == (now == before[file]) {
			t.Errorf("%s: changed %t", file, now != before[file])
		}
	}
}

// TestExpired: what an authority on this node has signed is signed again when it
// has expired, with its key, also by a node that went back to a copy of long ago;
// what cannot be signed here is an error.
func TestExpired(t *testing.T) {
	h, n, rel := machine(t), testNode(), release(t)
	if err := ensureAll(h, n, rel, clock); err != nil {
		t.Fatal(err)
	}
	before := contents(t, h)
	later := Clock{Now: testTime.AddDate(1, 0, 1), Built: clock.Built}
	if done, err := Complete(h, n, release(t), later); done || err != nil {
		t.Errorf("complete: %t, %v", done, err)
	}
	if done, err := KubeconfigsComplete(h, n, rel, later); done || err != nil {
		t.Errorf("kubeconfigs complete: %t, %v", done, err)
	}
	if err := ensureAll(h, n, rel, later); err != nil {
		t.Fatal(err)
	}
	if done, err := Complete(h, n, release(t), later); !done || err != nil {
		t.Errorf("complete: %t, %v", done, err)
	}
	for file, now := range contents(t, h) {
		keeps := path.Ext(file) == ".key" || path.Ext(file) == ".pub" || strings.HasSuffix(file, "ca.crt")
		if keeps != (now == before[file]) {
			t.Errorf("%s: changed %t", file, now != before[file])
		}
	}

	remove(t, h, dir+"/etcd/ca.key")
	even := Clock{Now: testTime.AddDate(2, 0, 2), Built: clock.Built}
	if err := ensureAll(h, n, rel, even); err == nil || !strings.Contains(err.Error(), "etcd/server.crt is there and not valid: it expired on 2028-03-01") {
		t.Errorf("without its authority's key: %v", err)
	}
	remove(t, h, dir+"/ca.key")
	if _, err := KubeconfigsComplete(h, n, rel, even); err == nil || !strings.Contains(err.Error(), "admin.conf is there and not valid: its client certificate: it expired on 2028-03-01") {
		t.Errorf("without the cluster's authority's key: %v", err)
	}
}

// TestInvalid spoils one file at a time. The error must name it and say why,
// tell nothing of keys, and leave every file as it was.
func TestInvalid(t *testing.T) {
	n, rel := testNode(), release(t)
	made, other := machine(t), machine(t)
	for _, h := range []*host.Host{made, other} {
		if err := ensureAll(h, n, rel, clock); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := load(made, dir, Cert{Base: CA})
	if err != nil {
		t.Fatal(err)
	}
	from := func(file string) func(t *testing.T, h *host.Host) []byte {
		return func(t *testing.T, _ *host.Host) []byte { return read(t, other, dir+file) }
	}
	text := func(s string) func(*testing.T, *host.Host) []byte {
		return func(*testing.T, *host.Host) []byte { return []byte(s) }
	}
	// signed makes a certificate for the API server's key from a changed row.
	signed := func(change func(c *Cert, k *Clock)) func(t *testing.T, h *host.Host) []byte {
		return func(t *testing.T, h *host.Host) []byte {
			table, err := Table(n, release(t))
			if err != nil {
				t.Fatal(err)
			}
			c, k := table[2], clock
			if c.Name != "apiserver" {
				t.Fatal(c.Name)
			}
			change(&c, &k)
			p, err := load(h, dir, c)
			if err != nil {
				t.Fatal(err)
			}
			der, err := sign(c, p.key.Public(), ca.cert, ca.key, k)
			if err != nil {
				t.Fatal(err)
			}
			return encodeCert(der)
		}
	}
	conf := func(old, new string) func(t *testing.T, h *host.Host) []byte {
		return func(t *testing.T, h *host.Host) []byte {
			return []byte(strings.Replace(string(read(t, h, "/etc/kubernetes/admin.conf")), old, new, 1))
		}
	}
	crt, key := dir+"/apiserver.crt", dir+"/apiserver.key"
	for name, c := range map[string]struct {
		file  string
		data  func(*testing.T, *host.Host) []byte
		clock Clock
		want  string // part of the error, beside the file's name
	}{
		"garbage":                {file: crt, data: text("hello"), want: "no PEM certificate"},
		"empty":                  {file: crt, data: text(""), want: "no PEM certificate"},
		"broken":                 {file: crt, data: text("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), want: "malformed"},
		"garbage for a key":      {file: key, data: text("hello"), want: "no PEM private key"},
		"another key":            {file: key, data: from("/apiserver.key"), want: "another key's"},
		"another certificate":    {file: crt, data: from("/apiserver.crt"), want: "another key's"},
		"another authority":      {file: dir + "/ca.crt", data: from("/ca.crt"), want: "another key's"},
		"no authority":           {file: dir + "/front-proxy-ca.crt", data: signed(func(c *Cert, _ *Clock) {}), want: "another key's"},
		"name is missing":        {file: crt, data: signed(func(c *Cert, _ *Clock) { c.DNS = c.DNS[1:] }), want: "the name node-1"},
		"address is missing":     {file: crt, data: signed(func(c *Cert, _ *Clock) { c.IPs = c.IPs[1:] }), want: "the address 10.96.0.1"},
		"wrong use":              {file: crt, data: signed(func(c *Cert, _ *Clock) { c.Usages = client() }), want: "usage"},
		"expired authority":      {file: "", clock: Clock{Now: testTime.AddDate(11, 0, 0)}, want: "it expired on 2036-02-27"},
		"key is missing":         {file: key, want: "without its key"},
		"authority is missing":   {file: dir + "/etcd/ca.crt", want: "without its authority"},
		"not yet by the clock":   {file: "", clock: Clock{Now: testTime.AddDate(0, -2, 0)}, want: "valid from 2026-02-01"},
		"sa.pub alone":           {file: dir + "/sa.key", want: "sa.pub is there without its key"},
		"another sa.pub":         {file: dir + "/sa.pub", data: from("/sa.pub"), want: "the public half"},
		"garbage for sa.pub":     {file: dir + "/sa.pub", data: text("x"), want: "no PEM public key"},
		"no kubeconfig":          {file: "/etc/kubernetes/admin.conf", data: text("hello: [" + "c2VjcmV0"), want: "no kubeconfig"},
		"another's kubeconfig":   {file: "/etc/kubernetes/admin.conf", data: func(t *testing.T, _ *host.Host) []byte { return read(t, other, "/etc/kubernetes/admin.conf") }, want: "another certificate authority"},
		"kubeconfig has no user": {file: "/etc/kubernetes/admin.conf", data: conf("user: kubernetes-admin", "user: nobody"), want: `user "nobody"`},
		"kubeconfig has no cluster": {file: "/etc/kubernetes/admin.conf", data: conf("cluster: kubernetes\n", "cluster: none\n"),
			want: `cluster "none"`},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			if err := os.CopyFS(h.Path("/"), os.DirFS(made.Path("/"))); err != nil {
				t.Fatal(err)
			}
			if c.data != nil {
				put(t, h, c.file, c.data(t, h))
			} else if c.file != "" {
				remove(t, h, c.file)
			}
			if c.clock.Now.IsZero() {
				c.clock = clock
			}
			before := contents(t, h)
			err := ensureAll(h, n, rel, c.clock)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), filepath.Base(c.file)) && c.file != "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error should name %s and say %q: %v", c.file, c.want, err)
			}
			if errors.As(err, new(outcome.Retry)) != (name == "not yet by the clock") {
				t.Errorf("the error is of the wrong kind: %v", err)
			}
			if !maps.Equal(before, contents(t, h)) {
				t.Error("files were changed")
			}
			for file, b := range before {
				if body := strings.Split(b, "\n"); strings.HasSuffix(file, ".key") && len(body) > 2 && strings.Contains(err.Error(), body[1]) {
					t.Errorf("the error shows %s", file)
				}
			}
		})
	}
}

func read(t testing.TB, h *host.Host, file string) []byte {
	t.Helper()
	b, err := h.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNotAnAuthority(t *testing.T) {
	h, n := machine(t), testNode()
	if err := Ensure(context.Background(), h, n, release(t), clock); err != nil {
		t.Fatal(err)
	}
	put(t, h, dir+"/ca.crt", read(t, h, dir+"/apiserver.crt"))
	put(t, h, dir+"/ca.key", read(t, h, dir+"/apiserver.key"))
	if err := Ensure(context.Background(), h, n, release(t), clock); err == nil || !strings.Contains(err.Error(), "not an authority's") {
		t.Errorf("error: %v", err)
	}
}

func TestExternalCA(t *testing.T) {
	n, rel := testNode(), release(t)
	made := machine(t)
	if err := ensureAll(made, n, rel, clock); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		remove []string
		want   string // of the error; empty is none
	}{
		"all there":            {remove: []string{"pki/ca.key"}},
		"front proxy":          {remove: []string{"pki/front-proxy-ca.key"}},
		"etcd":                 {remove: []string{"pki/etcd/ca.key"}},
		"others are made":      {remove: []string{"pki/ca.key", "pki/front-proxy-client.crt", "pki/front-proxy-client.key", "pki/etcd/peer.crt"}},
		"leaf is missing":      {remove: []string{"pki/ca.key", "pki/apiserver.crt", "pki/apiserver.key"}, want: "put /etc/kubernetes/pki/apiserver.crt and /etc/kubernetes/pki/apiserver.key in place"},
		"proxy leaf":           {remove: []string{"pki/front-proxy-ca.key", "pki/front-proxy-client.crt"}, want: "front-proxy-client.crt"},
		"key is missing":       {remove: []string{"pki/ca.key", "pki/apiserver.key"}, want: "apiserver.key"},
		"kubeconfig":           {remove: []string{"pki/ca.key", "scheduler.conf", "admin.conf"}, want: "admin.conf, scheduler.conf"},
		"service-account keys": {remove: []string{"pki/ca.key", "pki/sa.key", "pki/sa.pub"}, want: "sa.key"},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			if err := os.CopyFS(h.Path("/"), os.DirFS(made.Path("/"))); err != nil {
				t.Fatal(err)
			}
			for _, f := range c.remove {
				remove(t, h, "/etc/kubernetes/"+f)
			}
			before := contents(t, h)
			err := ensureAll(h, n, rel, clock)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			now := contents(t, h)
			for file, b := range before {
				if now[file] != b {
					t.Errorf("%s was changed", file)
				}
			}
			if _, ok := now["/etc/kubernetes/"+c.remove[0]]; ok {
				t.Error("the authority's key was made")
			}
			if done, err := Complete(h, n, release(t), clock); !done || err != nil {
				t.Errorf("complete: %t, %v", done, err)
			}
		})
	}
}

// TestWrongClock: a machine without a battery starts in 1970. What it makes is
// in force at once, and still when the clock has been put right.
func TestWrongClock(t *testing.T) {
	h, n := machine(t), testNode()
	wrong := Clock{Now: time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC), Built: testTime}
	if err := Ensure(context.Background(), h, n, release(t), wrong); err != nil {
		t.Fatal(err)
	}
	for base, life := range map[string]time.Duration{"ca": 10 * year, "apiserver": year} {
		p, err := load(h, dir, Cert{Base: base})
		if err != nil {
			t.Fatal(err)
		}
		if !p.cert.NotBefore.Equal(wrong.Now) || !p.cert.NotAfter.Equal(testTime.Add(life)) {
			t.Errorf("%s is valid from %s to %s", base, p.cert.NotBefore, p.cert.NotAfter)
		}
	}
	for _, c := range []Clock{wrong, {Now: testTime.AddDate(0, 6, 0), Built: testTime}} {
		if done, err := Complete(h, n, release(t), c); !done || err != nil {
			t.Errorf("at %s: complete %t, %v", c.Now, done, err)
		}
	}
}

func TestStopped(t *testing.T) {
	h := machine(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := Ensure(ctx, h, testNode(), release(t), clock); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if c := contents(t, h); len(c) > 0 {
		t.Errorf("%d files were written", len(c))
	}
}

// A user's own authority may have keys of any kind and form.
func TestKeyForms(t *testing.T) {
	for _, algorithm := range []string{rsa2048, "RSA-3072", ecdsaP256, "ECDSA-P384"} {
		k, err := newKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		own, err := encodeKey(k)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{own, append([]byte("# a comment\n"), own...), pemOf(pemPKCS8, pkcs8)} {
			got, err := parseKey(b)
			if err != nil || !samePublic(got.Public(), k.Public()) {
				t.Errorf("parsed %v (%v)", got, err)
			}
		}
		pub, err := encodePublic(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := parsePublics(append(pub, pub...)); err != nil || len(keys) != 2 || !samePublic(keys[1], k.Public()) {
			t.Errorf("public keys %v (%v)", keys, err)
		}
	}
	if samePublic(crypto.PublicKey("no key"), nil) {
		t.Error("a string is a key")
	}
}

func pemOf(kind string, der []byte) []byte {
	var b bytes.Buffer
	b.WriteString("-----BEGIN " + kind + "-----\n")
	b.WriteString(base64.StdEncoding.EncodeToString(der) + "\n")
	b.WriteString("-----END " + kind + "-----\n")
	return b.Bytes()
}

func TestEndpoint(t *testing.T) {
	for endpoint, want := range map[string]string{
		"":                     "https://192.0.2.10:6443",
		"api.example.com":      "https://api.example.com:6443",
		"api.example.com:8443": "https://api.example.com:8443",
		"2001:db8::1":          "https://[2001:db8::1]:6443",
		"[2001:db8::1]:8443":   "https://[2001:db8::1]:8443",
		"192.0.2.100:6443":     "https://192.0.2.100:6443",
	} {
		n := testNode()
		n.Cluster.ControlPlaneEndpoint = endpoint
		if got := Endpoint(n); got != want {
			t.Errorf("%q: %s, want %s", endpoint, got, want)
		}
	}
}

// BenchmarkEnsure makes all that kubeadm's certs phase makes, with RSA keys.
func BenchmarkEnsure(b *testing.B) {
	n := testNode()
	n.Cluster.FeatureGates = nil
	for b.Loop() {
		if err := ensureAll(machine(b), n, release(b), clock); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeys compares making the keys of a control plane one after another,
// as kubeadm does, with makeKeys.
func BenchmarkKeys(b *testing.B) {
	names := make([]string, 15)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	b.Run("one after another", func(b *testing.B) {
		for b.Loop() {
			for range names {
				if _, err := newKey(rsa2048); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("side by side", func(b *testing.B) {
		for b.Loop() {
			if _, err := makeKeys(b.Context(), names, rsa2048); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkComplete is what each boot does.
func BenchmarkComplete(b *testing.B) {
	h, n, rel := machine(b), testNode(), release(b)
	n.Cluster.FeatureGates = nil
	if err := ensureAll(h, n, rel, clock); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if done, err := Complete(h, n, rel, clock); !done || err != nil {
			b.Fatal(done, err)
		}
		if done, err := KubeconfigsComplete(h, n, rel, clock); !done || err != nil {
			b.Fatal(done, err)
		}
	}
}
