package firstboot

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const (
	joinToken = "abcdef.0123456789abcdef"
	joinKey   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// joinable is a cluster that our own first control plane has set up, behind a
// server that speaks TLS with that cluster's certificate.
type joinable struct {
	forbids  string // the end of paths where nothing may be made
	endpoint string
	pin      string
	first    *node.Machine
	admin    kubernetes.Interface
	sign     func() // signs what waits to be signed
}

func newJoinable(t *testing.T) *joinable {
	t.Helper()
	ctx := context.Background()
	s := apitest.Memory(t)
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	j := &joinable{admin: s.Client(t), sign: func() {}}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Request.Method == http.MethodPost && j.forbids != "" && strings.HasSuffix(resp.Request.URL.Path, j.forbids) {
			resp.StatusCode = http.StatusForbidden
			resp.Body = io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"exceeded quota"}`))
			resp.Header.Del("Content-Length")
			resp.ContentLength = -1
		}
		if resp.Request.Method == http.MethodPost && strings.HasSuffix(resp.Request.URL.Path, "/certificatesigningrequests") {
			j.sign()
		}
		return nil
	}
	web := httptest.NewUnstartedServer(proxy)
	j.endpoint = web.Listener.Addr().String()

	j.first = initMachine(t)
	machine := config.Machine{Hostname: "node-1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
	j.first.Node, _, err = config.Load(j.first.Baked, machine, config.Document{Source: "test", Data: []byte(testUserdata +
		"featureGates: {PublicKeysECDSA: true}\ncontrolPlaneEndpoint: " + j.endpoint + "\n")})
	if err != nil {
		t.Fatal(err)
	}
	j.first.Node.Init.UploadCerts = true
	if err := runSteps(ctx, j.first, stepCerts(), stepKubeconfig()); err != nil {
		t.Fatal(err)
	}
	read := func(file string) []byte {
		b, err := j.first.Host.ReadFile("/etc/kubernetes/pki/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pair, err := tls.X509KeyPair(read("apiserver.crt"), read("apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	web.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	web.StartTLS()
	t.Cleanup(web.Close)
	registerNode(t, j.admin)
	if err := runSteps(ctx, j.first, stepUploadConfig(), stepUploadCerts(), stepBootstrapToken()); err != nil {
		t.Fatal(err)
	}
	ca := parseTestCert(t, read("ca.crt"))
	j.pin = cluster.Pin(ca)
	block, _ := pem.Decode(read("ca.key"))
	caKey, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	j.sign = func() { signRequests(t, j.admin, ca, caKey) }
	// What the controller manager adds to cluster-info.
	infos := j.admin.CoreV1().ConfigMaps(metav1.NamespacePublic)
	info, err := infos.Get(ctx, "cluster-info", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Data["jws-kubeconfig-abcdef"], err = cluster.SignInfo(info.Data["kubeconfig"], joinToken); err != nil {
		t.Fatal(err)
	}
	if _, err := infos.Update(ctx, info, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return j
}

// forget takes the joined node out of the list of API servers: the cluster
// begins anew, too.
func (j *joinable) forget(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	maps := j.admin.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	cm, err := maps.Get(ctx, node.KubeadmConfig, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, err := config.MarshalClusterStatus(map[string]config.APIEndpoint{"node-1": j.first.Node.Init.LocalAPIEndpoint}, j.first.Baked.Release)
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["ClusterStatus"] = string(status)
	if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func parseTestCert(t *testing.T, b []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("no PEM: %q", b)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// signRequests does what the controller manager does with requests.
func signRequests(t *testing.T, c kubernetes.Interface, ca *x509.Certificate, key *ecdsa.PrivateKey) {
	ctx := context.Background()
	list, err := c.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	for _, r := range list.Items {
		if len(r.Status.Certificate) > 0 || len(r.Status.Conditions) > 0 {
			continue
		}
		block, _ := pem.Decode(r.Spec.Request)
		req, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || req.CheckSignature() != nil {
			t.Errorf("a bad request: %v", err)
			continue
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: req.Subject, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, ca, req.PublicKey, key)
		if err != nil {
			t.Error(err)
			continue
		}
		r.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if _, err := c.CertificatesV1().CertificateSigningRequests().Update(ctx, &r, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// machine is one that is to join, with an empty disk but for its frozen
// configuration.
func (j *joinable) machine(t *testing.T, role config.Role) *node.Machine {
	t.Helper()
	m := initMachine(t)
	m.Host.Now = j.first.Host.Now
	text := fmt.Sprintf("apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: %s\nname: node-2\naddress: 192.0.2.11\nendpoint: %q\ntoken: %s\ncaCertHashes: [%q]\n", role, j.endpoint, joinToken, j.pin)
	if role == config.RoleControlPlane {
		text += "certificateKey: " + joinKey + "\n"
	}
	n, _, err := config.Load(m.Baked, config.Machine{Hostname: "x", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}}}, config.Document{Source: "test", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	m.Node = n
	if err := m.Freeze(n); err != nil {
		t.Fatal(err)
	}
	m.Host.Hostname = func() (string, error) { return "node-2", nil }
	m.Host.Probe.Links = func() ([]host.Link, error) { return nil, nil }
	return m
}

func joinSteps(role config.Role) []converge.Step {
	if role == config.RoleWorker {
		return []converge.Step{stepDiscovery(), stepTLSBootstrap(), stepScrubSecrets()}
	}
	return []converge.Step{stepDiscovery(), stepDownloadCerts(), stepTLSBootstrap(), stepCerts(), stepKubeconfig(), stepUpdateStatus(), stepScrubSecrets()}
}

// TestJoinCrash cuts the power of a joining node at each change that it makes,
// and boots again: the disk must end as if nothing had happened, a further boot
// must change nothing, and no secret may be left.
func TestJoinCrash(t *testing.T) {
	for _, role := range []config.Role{config.RoleWorker, config.RoleControlPlane} {
		t.Run(string(role), func(t *testing.T) {
			ctx, j := context.Background(), newJoinable(t)
			m := j.machine(t, role)
			var changes []string
			m.Host.Effect = func(what string) error { changes = append(changes, what); return nil }
			if err := runSteps(ctx, m, joinSteps(role)...); err != nil {
				t.Fatal(err)
			}
			want, n := joinView(t, m), len(changes)
			checkJoined(t, j, m, role)
			if err := runSteps(ctx, m, joinSteps(role)...); err != nil || len(changes) != n {
				t.Errorf("a further boot changed %q (%v)", changes[n:], err)
			}
			for k := range n {
				j.forget(t)
				m := j.machine(t, role)
				count := 0
				m.Host.Effect = func(what string) error {
					if count++; count <= k {
						return nil
					}
					litter(t, m, what)
					return errPowerCut
				}
				if err := runSteps(ctx, m, joinSteps(role)...); !errors.Is(err, errPowerCut) {
					t.Fatalf("cut before change %d, %s: the steps say %v", k+1, changes[k], err)
				}
				m.Host.Effect = nil
				var err error
				if m.Node, err = node.Frozen(m.Host); err != nil { // what memory held is gone
					t.Fatal(err)
				}
				if err := runSteps(ctx, m, joinSteps(role)...); err != nil {
					t.Fatalf("the boot after a cut before change %d, %s: %v", k+1, changes[k], err)
				}
				if d := cmp.Diff(want, joinView(t, m)); d != "" {
					t.Errorf("a cut before change %d, %s, left another disk (-undisturbed +cut):\n%s", k+1, changes[k], d)
				}
			}
			t.Logf("%d changes, each cut", n)
		})
	}
}

// joinView is diskView without the certificate that is another one each time.
func joinView(t *testing.T, m *node.Machine) map[string]string {
	t.Helper()
	view := diskView(t, m.Host.Path("/"))
	for k := range view {
		if strings.Contains(k, "kubelet-client-first.pem") && !strings.HasSuffix(k, " mode") {
			delete(view, k)
		}
	}
	return view
}

func checkJoined(t *testing.T, j *joinable, m *node.Machine, role config.Role) {
	t.Helper()
	read := func(h *node.Machine, file string) string {
		b, err := h.Host.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := kubelet.PKIDir + "/kubelet-client-first.pem"
	pair, err := tls.X509KeyPair([]byte(read(m, first)), []byte(read(m, first)))
	if err != nil || pair.Leaf.Subject.String() != "CN=system:node:node-2,O=system:nodes" {
		t.Errorf("the kubelet's certificate: %v, %v", pair.Leaf, err)
	}
	if conf := read(m, node.KubeletKubeconfig); !strings.Contains(conf, "server: https://"+j.endpoint) || !strings.Contains(conf, kubelet.PKIDir+"/kubelet-client-current.pem") {
		t.Errorf("kubelet.conf is\n%s", conf)
	}
	err = filepath.WalkDir(m.Host.Path("/"), func(file string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(file)
		if strings.Contains(string(b), "0123456789abcdef") {
			t.Errorf("%s holds the token or the certificate key", file)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if role == config.RoleWorker {
		return
	}
	for _, file := range []string{"ca.crt", "ca.key", "etcd/ca.key", "front-proxy-ca.key", "sa.key", "sa.pub"} {
		if read(m, "/etc/kubernetes/pki/"+file) != read(j.first, "/etc/kubernetes/pki/"+file) {
			t.Errorf("%s is not the cluster's", file)
		}
	}
	endpoints, err := node.APIEndpoints(context.Background(), j.admin)
	if err != nil || endpoints["node-2"].AdvertiseAddress != "192.0.2.11" || endpoints["node-1"].AdvertiseAddress != "192.0.2.10" {
		t.Errorf("the cluster lists API servers %v, %v", endpoints, err)
	}
}

// Each trouble is told apart, and waited out only where time can mend it.
func TestJoinTrouble(t *testing.T) {
	ctx, j := context.Background(), newJoinable(t)
	for name, c := range map[string]struct {
		role    config.Role
		trouble func(t *testing.T, m *node.Machine)
		want    string
		waits   bool
	}{
		"wrong pin": {config.RoleWorker, func(_ *testing.T, m *node.Machine) {
			m.Node.Join.Discovery.BootstrapToken.CACertHashes = []string{"sha256:" + strings.Repeat("0", 64)}
		}, "not the pinned one", false},
		"unknown token": {config.RoleWorker, func(_ *testing.T, m *node.Machine) {
			m.Node.Join.Discovery.BootstrapToken.Token = "uvwxyz.0123456789abcdef"
		}, "not signed with token uvwxyz", true},
		"clock years off": {config.RoleWorker, func(_ *testing.T, m *node.Machine) {
			m.Host.Now = func() time.Time { return time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) }
		}, "clock shows 2001", true},
		"wrong certificate key": {config.RoleControlPlane, func(_ *testing.T, m *node.Machine) {
			m.Node.Init.CertificateKey = config.Secret(strings.Repeat("00", 32))
		}, "give the certificateKey", false},
		"no certificate key": {config.RoleControlPlane, func(_ *testing.T, m *node.Machine) { m.Node.Init.CertificateKey = "" }, "give certificateKey", false},
		"name taken": {config.RoleWorker, func(t *testing.T, m *node.Machine) {
			_, err := j.admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			m.Node.Init.NodeRegistration.Name = "taken"
		}, "a Ready node named taken already", true},
		"request denied": {config.RoleWorker, func(_ *testing.T, m *node.Machine) {
			key, _, err := loadBootstrapKey(m)
			if err != nil {
				t.Fatal(err)
			}
			req, err := cluster.NodeRequest(key, "node-2")
			if err != nil {
				t.Fatal(err)
			}
			req.Status.Conditions = []certv1.CertificateSigningRequestCondition{{Type: certv1.CertificateDenied, Status: corev1.ConditionTrue, Message: "no"}}
			if _, err := j.admin.CertificatesV1().CertificateSigningRequests().Create(ctx, req, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "was answered Denied: no", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := j.machine(t, c.role)
			c.trouble(t, m)
			var err error
			for _, s := range joinSteps(c.role)[:3] {
				if done, _ := s.Done(ctx, m); done {
					continue
				}
				if err = s.Do(ctx, m); err != nil {
					break
				}
				if _, err = s.Done(ctx, m); err != nil {
					break
				}
			}
			_, waits := errors.AsType[outcome.Retry](err)
			_, final := errors.AsType[outcome.Refused](err)
			if err == nil || !strings.Contains(err.Error(), c.want) || waits != c.waits || final == c.waits {
				t.Errorf("%v (waits %t, final %t), want one with %q (waits %t)", err, waits, final, c.want, c.waits)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("the error shows a secret: %v", err)
			}
			if m.Joined() {
				t.Error("it has joined")
			}
		})
	}
}
