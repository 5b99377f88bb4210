package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/config"
)

const (
	infoPath = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
	// infoTimeout bounds one look for the cluster; the runner looks again.
	infoTimeout = 15 * time.Second
	// maxInfo is what is read of an answer that is not trusted yet, in bytes.
	maxInfo = 1 << 20
)

// Discovered is a cluster that was found and is known to be the right one.
type Discovered struct {
	Server string // URL
	CA     []byte // PEM
	// User holds credentials that a discovery file brought; nil is none.
	User *clientcmdapi.AuthInfo
}

// DiscoverByToken asks the API server for cluster-info and trusts it when it
// is signed with the token, its authority is one of the pins, and the server
// that answered shows a certificate of that authority (kubeadm:
// cmd/kubeadm/app/discovery/token). kubeadm asks a second time for the last;
// here the certificate of the one connection is judged afterwards, which costs
// the API server half as much and leaves no gap between two answers.
//
// The error is an outcome, or ctx's.
func DiscoverByToken(ctx context.Context, t *config.BootstrapTokenDiscovery, now time.Time) (Discovered, error) {
	data, chain, err := insecureInfo(ctx, t.APIServerEndpoint)
	if err != nil {
		return Discovered{}, err
	}
	found, err := trustInfo(data, t)
	if err != nil || len(t.CACertHashes) == 0 {
		return found, err
	}
	host, _, err := net.SplitHostPort(t.APIServerEndpoint)
	if err != nil {
		return Discovered{}, err
	}
	return found, trustServer(host, chain, found.CA, now)
}

// insecureInfo fetches cluster-info from whoever answers at endpoint, and the
// certificates that were shown.
func insecureInfo(ctx context.Context, endpoint string) (map[string]string, []*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+endpoint+infoPath, nil)
	if err != nil {
		return nil, nil, refuse(fmt.Sprintf("%q is no host and port of an API server", endpoint), "correct endpoint in user-data")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "kbuild-firstboot")
	// What comes back is not trusted before it is verified.
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, retry(fmt.Sprintf("no API server answers at %s: %v", endpoint, cause(err)), "this node waits for it; if it never comes, correct endpoint in user-data or what lies between")
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil, retry(fmt.Sprintf("the API server at %s has no ConfigMap cluster-info yet", endpoint), "the first control plane makes it when it comes up (phase bootstrap-token); this node waits for it")
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized:
		return nil, nil, retry(fmt.Sprintf("the API server at %s does not let anybody read cluster-info yet", endpoint), "the first control plane allows it when it comes up; if it was forbidden on purpose, use a discoveryFile")
	default:
		return nil, nil, retry(fmt.Sprintf("what answers at %s says %s when it is asked for cluster-info", endpoint, resp.Status), "this node waits for the API server; see what lies between if it stays so")
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return nil, nil, retry(fmt.Sprintf("the answer of %s broke off: %v", endpoint, cause(err)), "this node asks again")
	}
	var cm struct {
		Kind string            `json:"kind"`
		Data map[string]string `json:"data"`
	}
	if err := json.Unmarshal(b, &cm); err != nil || cm.Kind != "ConfigMap" || resp.TLS == nil {
		return nil, nil, retry(fmt.Sprintf("what answers at %s is no API server: it sent no ConfigMap", endpoint), "correct endpoint in user-data, or what lies between")
	}
	return cm.Data, resp.TLS.PeerCertificates, nil
}

// cause is the error of a request without its URL.
func cause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// trustInfo judges what cluster-info holds: bytes of a stranger. data is the
// ConfigMap's.
func trustInfo(data map[string]string, t *config.BootstrapTokenDiscovery) (Discovered, error) {
	id, err := TokenID(t.Token)
	if err != nil {
		return Discovered{}, err
	}
	kubeconfig, signature := data["kubeconfig"], data[signaturePrefix+id]
	switch {
	case kubeconfig == "":
		return Discovered{}, refuse("cluster-info holds no kubeconfig", "run `kubeadm init phase bootstrap-token` on a control plane")
	case signature == "":
		return Discovered{}, retry(fmt.Sprintf("cluster-info is not signed with token %s: the token has expired, was deleted, or is not made yet", id),
			"make it with `kbuild token create TOKEN` or `kubeadm token create TOKEN`, or give this node another in user-data; this node waits for the signature")
	}
	if err := verifyInfo(signature, kubeconfig, t.Token); err != nil {
		return Discovered{}, refuse(fmt.Sprintf("cluster-info is forged, or token %s in user-data is wrong: its signature does not verify: %v", id, err),
			"correct token or endpoint in user-data, and look who answers there")
	}
	found, err := readInfo(kubeconfig)
	if err != nil || len(t.CACertHashes) == 0 {
		return found, err
	}
	var pins []string
	for _, c := range parseCerts(found.CA) {
		pins = append(pins, Pin(c))
	}
	if !slices.ContainsFunc(pins, func(p string) bool { return slices.Contains(t.CACertHashes, p) }) {
		return Discovered{}, refuse(fmt.Sprintf("the cluster's CA is not the pinned one: it is %s", strings.Join(pins, ", ")),
			"if that is your cluster, correct caCertHashes in user-data; if not, correct endpoint, and look who answers there")
	}
	return found, nil
}

// Pin is the pin of an authority, as kubeadm writes it.
func Pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// readInfo reads the kubeconfig in cluster-info.
func readInfo(text string) (Discovered, error) {
	bad := func(what string) (Discovered, error) {
		return Discovered{}, refuse("the kubeconfig in cluster-info cannot be used: "+what, "run `kubeadm init phase bootstrap-token` on a control plane")
	}
	kc, err := clientcmd.Load([]byte(text))
	if err != nil {
		return bad("it is no kubeconfig")
	}
	if len(kc.Clusters) != 1 {
		return bad(fmt.Sprintf("it holds %d clusters, want one", len(kc.Clusters)))
	}
	for _, c := range kc.Clusters {
		if len(parseCerts(c.CertificateAuthorityData)) == 0 {
			return bad("it holds no certificate authority")
		}
		if !strings.HasPrefix(c.Server, "https://") {
			return bad("its server is no https URL")
		}
		return Discovered{Server: c.Server, CA: c.CertificateAuthorityData}, nil
	}
	panic("not reached: there is one cluster")
}

// trustServer judges the certificate that a server showed for host.
func trustServer(host string, chain []*x509.Certificate, ca []byte, now time.Time) error {
	if len(chain) == 0 {
		return refuse("the API server showed no certificate", "look who answers at endpoint")
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range parseCerts(ca) {
		o.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	if err == nil {
		return nil
	}
	if clock := clockRefusal(err, now); clock != nil {
		return clock
	}
	return refuse(fmt.Sprintf("whoever answers at %s is not the cluster's API server: %v", host, err),
		"correct endpoint in user-data to a name or address in the API server's certificate (apiServerCertSANs), and look who answers there")
}

// parseCerts reads the certificates of PEM; what is none is left out.
func parseCerts(b []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return certs
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			certs = append(certs, c)
		}
	}
}
