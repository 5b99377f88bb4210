package pki

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
)

// TestAPIServerNames: each name and address once, and each in its kind.
func TestAPIServerNames(t *testing.T) {
	const (
		dns = "kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local node-1"
		ips = "10.96.0.1 192.0.2.10"
	)
	for name, c := range map[string]struct {
		change   func(n *config.Node)
		dns, ips string
	}{
		"default":                   {func(*config.Node) {}, dns, ips},
		"endpoint":                  {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "api.example.com" }, dns + " api.example.com", ips},
		"endpoint with a port":      {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "api.example.com:443" }, dns + " api.example.com", ips},
		"address":                   {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "192.0.2.100" }, dns, ips + " 192.0.2.100"},
		"address with a port":       {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "192.0.2.100:443" }, dns, ips + " 192.0.2.100"},
		"IPv6 address":              {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "2001:db8::1" }, dns, ips + " 2001:db8::1"},
		"IPv6 address in brackets":  {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "[2001:db8::1]" }, dns, ips + " 2001:db8::1"},
		"IPv6 address with a port":  {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "[2001:db8::1]:443" }, dns, ips + " 2001:db8::1"},
		"endpoint that is the node": {func(n *config.Node) { n.Cluster.ControlPlaneEndpoint = "192.0.2.10:6443" }, dns, ips},
		"more names, some twice": {func(n *config.Node) {
			n.Cluster.APIServer.CertSANs = []string{"a.example.com", "node-1", "a.example.com", "", "*.example.com", "2001:db8::1", "2001:0db8::0001", "::ffff:192.0.2.10"}
		}, dns + " a.example.com *.example.com", ips + " 2001:db8::1"},
		"IPv6 services first": {func(n *config.Node) { n.Cluster.Networking.ServiceSubnet = "fd00:1::/112,10.96.0.0/12" }, dns, "fd00:1::1 192.0.2.10"},
	} {
		n := testNode()
		c.change(n)
		table, err := Table(n, release(t))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		i := slices.IndexFunc(table, func(c Cert) bool { return c.Base == "apiserver" })
		if got, want := sorted(table[i].DNS), sorted(strings.Fields(c.dns)); got != want {
			t.Errorf("%s: names %s, want %s", name, got, want)
		}
		if got, want := sorted(table[i].IPs), sorted(strings.Fields(c.ips)); got != want {
			t.Errorf("%s: addresses %s, want %s", name, got, want)
		}
	}
	n := testNode()
	n.Cluster.Networking.ServiceSubnet = "nonsense"
	if _, err := Table(n, release(t)); err == nil || !strings.Contains(err.Error(), "service subnet") {
		t.Errorf("error: %v", err)
	}
}

func sorted[T any](list []T) string {
	var s []string
	for _, v := range list {
		s = append(s, fmt.Sprint(v))
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// TestEtcdNames: etcd's server and peer each have their own more names, and an
// external etcd has no certificates here.
func TestEtcdNames(t *testing.T) {
	n := testNode()
	n.Cluster.Etcd.Local.ServerCertSANs = []string{"etcd.example.com", "localhost"}
	n.Cluster.Etcd.Local.PeerCertSANs = []string{"192.0.2.11"}
	table, err := Table(n, release(t))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range table {
		got[c.Base] = sorted(c.DNS) + " " + sorted(c.IPs)
	}
	if s := got["etcd/server"]; s != "etcd.example.com localhost node-1 127.0.0.1 192.0.2.10 ::1" {
		t.Errorf("server: %s", s)
	}
	if s := got["etcd/peer"]; s != "localhost node-1 127.0.0.1 192.0.2.10 192.0.2.11 ::1" {
		t.Errorf("peer: %s", s)
	}
	n.Cluster.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://192.0.2.20:2379"}}}
	if table, err = Table(n, release(t)); err != nil || len(table) != 5 {
		t.Errorf("external etcd: %d certificates (%v)", len(table), err)
	}
}
