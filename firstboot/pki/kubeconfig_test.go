package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// TestKubeconfigs takes those that are made as a client would.
func TestKubeconfigs(t *testing.T) {
	m := brought{t, machine(t), testNode()}
	m.node.Cluster.ControlPlaneEndpoint, m.node.Cluster.ClusterName = "api.example.com", "prod"
	m.must(ensureAll(m.h, m.node, release(t), clock))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(m.get("ca.crt")))
	for file, want := range map[string]struct{ server, subject, context string }{
		"admin.conf":              {"https://api.example.com:6443", "CN=kubernetes-admin,O=system:masters", "kubernetes-admin@prod"},
		"kubelet.conf":            {"https://api.example.com:6443", "CN=system:node:node-1,O=system:nodes", "system:node:node-1@prod"},
		"controller-manager.conf": {"https://192.0.2.10:6443", "CN=system:kube-controller-manager", "system:kube-controller-manager@prod"},
		"scheduler.conf":          {"https://192.0.2.10:6443", "CN=system:kube-scheduler", "system:kube-scheduler@prod"},
	} {
		b := read(t, m.h, KubernetesDir+"/"+file)
		c, err := clientcmd.RESTConfigFromKubeConfig(b)
		m.must(err)
		raw, err := clientcmd.Load(b)
		m.must(err)
		got, err := tls.X509KeyPair(c.CertData, c.KeyData)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if c.Host != want.server || got.Leaf.Subject.String() != want.subject || raw.CurrentContext != want.context || string(c.CAData) != m.get("ca.crt") {
			t.Errorf("%s: %s at %s, context %s", file, got.Leaf.Subject, c.Host, raw.CurrentContext)
		}
		if _, err := got.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: client(), CurrentTime: testTime}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// admin is a kubeconfig that is meddled with.
type admin struct {
	brought
	conf    *api.Config
	cluster *api.Cluster
	user    *api.AuthInfo
}

// sign makes the user's certificate anew, after a change.
func (a admin) sign(signer string, change func(*x509.Certificate)) {
	a.t.Helper()
	certs, err := parseCerts(a.user.ClientCertificateData)
	a.must(err)
	change(certs[0])
	ca := a.load(signer)
	der, err := x509.CreateCertificate(rand.Reader, certs[0], ca.cert, certs[0].PublicKey, ca.key)
	a.must(err)
	a.user.ClientCertificateData = encodeCert(der)
}

// TestForeignKubeconfig brings an admin.conf. want is part of the error; where
// it is empty, the file is kept.
func TestForeignKubeconfig(t *testing.T) {
	made := brought{t, machine(t), testNode()}
	made.must(ensureAll(made.h, made.node, release(t), clock))
	for name, c := range map[string]struct {
		bring func(a admin)
		want  string
	}{
		"another server": {bring: func(a admin) { a.cluster.Server = "https://admin.example.com" }},
		"a token":        {bring: func(a admin) { *a.user = api.AuthInfo{Token: "secret"} }},
		"a certificate in a file, as the kubelet's once it rotates": {bring: func(a admin) {
			*a.user = api.AuthInfo{ClientCertificate: "/var/lib/kubelet/pki/a.pem", ClientKey: "/var/lib/kubelet/pki/a.pem"}
		}},
		"another subject":       {bring: func(a admin) { a.sign(CA, func(c *x509.Certificate) { c.Subject.CommonName = "jane" }) }},
		"more contexts":         {bring: func(a admin) { a.conf.Contexts["other"] = &api.Context{Cluster: "other", AuthInfo: "nobody"} }},
		"no such context":       {func(a admin) { a.conf.CurrentContext = "gone" }, `its current context "gone" is not in it`},
		"no authority":          {func(a admin) { a.cluster.CertificateAuthorityData = nil }, "its certificate authority: there is no PEM certificate in it"},
		"authority of etcd":     {func(a admin) { a.cluster.CertificateAuthorityData = []byte(a.get("etcd/ca.crt")) }, "it trusts another certificate authority than this cluster's"},
		"certificate of etcd's": {func(a admin) { a.sign(EtcdCA, func(*x509.Certificate) {}) }, "its client certificate: x509: certificate signed by unknown authority"},
		"server's certificate":  {func(a admin) { a.user.ClientCertificateData = []byte(a.get("apiserver.crt")) }, "its client certificate: x509"},
		"broken certificate":    {func(a admin) { a.user.ClientCertificateData = []byte("rubbish") }, "its client certificate: there is no PEM certificate in it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := brought{t, machine(t), testNode()}
			for file, b := range contents(t, made.h) {
				put(t, m.h, file, []byte(b))
			}
			conf, err := clientcmd.Load(read(t, m.h, KubernetesDir+"/admin.conf"))
			m.must(err)
			ctx := conf.Contexts[conf.CurrentContext]
			c.bring(admin{m, conf, conf.Clusters[ctx.Cluster], conf.AuthInfos[ctx.AuthInfo]})
			b, err := clientcmd.Write(*conf)
			m.must(err)
			put(t, m.h, KubernetesDir+"/admin.conf", b)
			remove(t, m.h, KubernetesDir+"/scheduler.conf") // it is left to do
			before := contents(t, m.h)
			err = ensureAll(m.h, m.node, release(t), clock)
			after := contents(t, m.h)
			if c.want == "" {
				m.must(err)
				if delete(after, KubernetesDir+"/scheduler.conf"); !maps.Equal(before, after) {
					t.Error("files were changed")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "/etc/kubernetes/admin.conf is there and not valid: "+c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
			if !maps.Equal(before, after) {
				t.Error("files were changed")
			}
		})
	}
}

func TestKubeconfigsWithoutCertificates(t *testing.T) {
	m := brought{t, machine(t), testNode()}
	err := EnsureKubeconfigs(t.Context(), m.h, m.node, release(t), clock)
	if err == nil || !strings.Contains(err.Error(), "there is no /etc/kubernetes/pki/ca.crt") {
		t.Errorf("error: %v", err)
	}
	if len(contents(t, m.h)) > 0 {
		t.Error("files were written")
	}
}
