package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// proxyOf says through which proxy https://addr/ would be asked.
func (m machine) proxyOf(addr string) (string, error) {
	if a, err := netip.ParseAddr(addr); err == nil && a.Is6() {
		addr = net.JoinHostPort(addr, "443")
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		return "", err
	}
	if m.Host.Proxy == nil {
		return "", nil
	}
	p, err := m.Host.Proxy(req)
	if err != nil || p == nil {
		return "", err
	}
	return p.Redacted(), nil
}

func (m machine) proxyHost(_ context.Context, f *Findings) {
	m.proxyTo(f, m.Node.Init.LocalAPIEndpoint.AdvertiseAddress)
}

func (m machine) proxyTo(f *Findings, addr string) {
	switch p, err := m.proxyOf(addr); {
	case err != nil:
		f.fail("correct the proxy variables of kbuild-firstboot.service", "%v", err)
	case p != "":
		f.warn("add the address to NO_PROXY if that is not meant", "the API server at %s would be asked through proxy %s", addr, p)
	}
}

func (m machine) proxySubnet(f *Findings, subnet string) {
	first, err := config.Nth(subnet, 1)
	if err != nil {
		f.fail("correct the subnet", "%v", err)
		return
	}
	switch p, err := m.proxyOf(first.String()); {
	case err != nil:
		f.fail("correct the proxy variables of kbuild-firstboot.service", "%v", err)
	case p != "":
		f.warn("add the subnet to NO_PROXY", "addresses of %s would be asked through proxy %s", subnet, p)
	}
}

// minEtcd is the oldest external etcd that kubeadm of these versions takes
// (cmd/kubeadm/app/constants, MinExternalEtcdVersion 3.2.18).
func minEtcd() [3]int { return [3]int{3, 2, 18} }

func (m machine) externalEtcd(ctx context.Context, f *Findings) {
	x := m.Node.Cluster.Etcd.External
	cfg, err := m.etcdTLS(x)
	if err != nil {
		f.fail("give the files of the etcd servers' CA and of a client certificate", "%v", err)
		return
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, Proxy: m.Host.Proxy, DisableKeepAlives: true}}
	for _, e := range x.Endpoints {
		f.ask(ctx, "etcd at "+e, func(ctx context.Context) { checkEtcd(ctx, f, client, e) })
	}
}

// checkEtcd compares the version of the member at endpoint with minEtcd.
func checkEtcd(ctx context.Context, f *Findings, client *http.Client, endpoint string) {
	v, err := etcdVersion(ctx, client, endpoint)
	if err != nil {
		f.fail("see that the member runs and is reached from here", "cannot ask etcd at %s for its version: %v", endpoint, err)
		return
	}
	var n [3]int
	if _, err := fmt.Sscanf(v, "%d.%d.%d", &n[0], &n[1], &n[2]); err != nil {
		f.fail("", "etcd at %s says its version is %q", endpoint, v)
		return
	}
	if want := minEtcd(); n[0] < want[0] || n[0] == want[0] && (n[1] < want[1] || n[1] == want[1] && n[2] < want[2]) {
		f.fail("upgrade it", "etcd at %s is version %s, older than %d.%d.%d", endpoint, v, want[0], want[1], want[2])
	}
}

func (m machine) etcdTLS(x *config.ExternalEtcd) (*tls.Config, error) {
	cfg := &tls.Config{}
	if x.CAFile != "" {
		b, err := m.Host.ReadFile(x.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA of etcd: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate", x.CAFile)
		}
	}
	if x.CertFile != "" && x.KeyFile != "" {
		cert, err := m.Host.ReadFile(x.CertFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the client certificate for etcd: %w", err)
		}
		key, err := m.Host.ReadFile(x.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the client key for etcd: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s are no pair: %w", x.CertFile, x.KeyFile, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// etcdVersion asks a member for its version (GET /version).
func etcdVersion(ctx context.Context, c *http.Client, endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/version"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s", resp.Status)
	}
	var v struct {
		Server string `json:"etcdserver"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&v); err != nil {
		return "", err
	}
	return v.Server, nil
}
