package config

import (
	"net"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What kubeadm fills in (cmd/kubeadm/app/apis/kubeadm/v1beta2/defaults.go).
const (
	defaultCACertPath       = "/etc/kubernetes/pki/ca.crt"
	defaultDiscoveryTimeout = 5 * time.Minute
)

// defaultJoin fills in a JoinConfiguration. The endpoint's port may be left
// out, which kubeadm does not allow.
func defaultJoin(n *Node) {
	j := &n.Join
	set(n, "join.caCertPath", &j.CACertPath, defaultCACertPath, sourceDefault)
	d := &j.Discovery
	if d.Timeout == nil {
		d.Timeout = &metav1.Duration{Duration: defaultDiscoveryTimeout}
		n.Sources["join.discovery.timeout"] = sourceDefault
	}
	if t := d.BootstrapToken; t != nil {
		set(n, "join.discovery.tlsBootstrapToken", &d.TLSBootstrapToken, t.Token, "discovery.bootstrapToken.token")
		if host, port, err := parseHostPort(t.APIServerEndpoint); err == nil && port == "" {
			t.APIServerEndpoint = net.JoinHostPort(host, "6443")
		}
		for i, pin := range t.CACertHashes {
			t.CACertHashes[i] = strings.ToLower(strings.TrimSpace(pin))
		}
	}
	if f := d.File; f != nil {
		if u, err := url.Parse(f.KubeConfigPath); err == nil && u.Scheme == "file" {
			f.KubeConfigPath = u.Path
		}
	}
}
