// Package pki makes and judges the keys, certificates and kubeconfigs of a
// cluster.
//
// What there is to make is a table of Cert values: each says its file, its
// signer, its subject, its names and its uses, all as kubeadm has them. A
// file that is there and valid is kept; one that is there and not valid is an
// error with the reason, and is never written over. Private keys have mode
// 0600, and so has sa.pub, as kubeadm gives it; certificates have 0644.
package pki

import (
	"crypto/x509"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// Cert is one row of the table.
type Cert struct {
	Name   string // for people, as kubeadm calls it: "apiserver-etcd-client"
	Base   string // path below the certificates directory, without .crt and .key
	CA     string // Base of the signer; empty for an authority, which signs itself
	CN     string
	Org    []string
	Usages []x509.ExtKeyUsage
	DNS    []string
	IPs    []net.IP
	// Algorithm is that of its key, one of kubeadm's names; Life is how long it is
	// valid.
	Algorithm string
	Life      time.Duration
	Form      Form
}

// Bases of the authorities.
const (
	CA           = "ca"
	FrontProxyCA = "front-proxy-ca"
	EtcdCA       = "etcd/ca"
)

// KubeletClientUser is the name by which the API server is known to kubelets.
const KubeletClientUser = "kube-apiserver-kubelet-client"

// SAKey and SAPub hold the key pair that signs service-account tokens.
const (
	SAKey = "sa.key"
	SAPub = "sa.pub"
)

const masters = "system:masters" // nothing can take its rights away

// ClusterAdmins is the group of administrators, since they are bound by RBAC, and
// the binding that gives it its rights.
const ClusterAdmins = "kubeadm:cluster-admins"

func client() []x509.ExtKeyUsage { return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// Table is every certificate that a control-plane node has in the version of rel,
// authorities first. With an external etcd, etcd's own are left out.
// (kubeadm: cmd/kubeadm/app/phases/certs/certlist.go)
func Table(n *config.Node, rel images.Release) ([]Cert, error) {
	table, err := rows(n, rel)
	for i := range table {
		c := &table[i]
		c.Algorithm, c.Form, c.Life = Algorithm(n, rel), formOf(rel), life(n)
		if c.CA == "" {
			c.Life = lifeOfCA(n)
		}
	}
	return table, err
}

// rows is Table with what differs from one certificate to the next.
func rows(n *config.Node, rel images.Release) ([]Cert, error) {
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

	api := Cert{Name: "apiserver", Base: "apiserver", CA: CA, CN: "kube-apiserver", Usages: server}
	if err := apiServerNames(&api, n); err != nil {
		return nil, err
	}
	table := []Cert{
		{Name: "ca", Base: CA, CN: "kubernetes"},
		{Name: "front-proxy-ca", Base: FrontProxyCA, CN: "front-proxy-ca"},
		api,
		{Name: "apiserver-kubelet-client", Base: "apiserver-kubelet-client", CA: CA, CN: KubeletClientUser, Org: groups(rel.KubeletClient), Usages: client()},
		{Name: "front-proxy-client", Base: "front-proxy-client", CA: FrontProxyCA, CN: "front-proxy-client", Usages: client()},
	}
	if n.Cluster.Etcd.External != nil {
		return table, nil
	}
	node := n.Init.NodeRegistration.Name
	names := []string{node, "localhost", n.Init.LocalAPIEndpoint.AdvertiseAddress, "127.0.0.1", "::1"}
	server1 := Cert{Name: "etcd-server", Base: "etcd/server", CA: EtcdCA, CN: node, Usages: both}
	server1.addNames(names...)
	peer := Cert{Name: "etcd-peer", Base: "etcd/peer", CA: EtcdCA, CN: node, Usages: both}
	peer.addNames(names...)
	if l := n.Cluster.Etcd.Local; l != nil {
		server1.addNames(l.ServerCertSANs...)
		peer.addNames(l.PeerCertSANs...)
	}
	var etcd []string
	if rel.Has(images.FactEtcdClientMasters) {
		etcd = groups(masters)
	}
	return append(table,
		Cert{Name: "etcd-ca", Base: EtcdCA, CN: "etcd-ca"},
		server1, peer,
		Cert{Name: "etcd-healthcheck-client", Base: "etcd/healthcheck-client", CA: EtcdCA, CN: "kube-etcd-healthcheck-client", Org: etcd, Usages: client()},
		Cert{Name: "apiserver-etcd-client", Base: "apiserver-etcd-client", CA: EtcdCA, CN: "kube-apiserver-etcd-client", Org: etcd, Usages: client()},
	), nil
}

// groups is a list of one name, or none where that is empty.
func groups(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// apiServerNames adds the names and addresses that the API server is reached
// by.
func apiServerNames(c *Cert, n *config.Node) error {
	subnet, _, _ := strings.Cut(n.Cluster.Networking.ServiceSubnet, ",")
	service, err := config.Nth(subnet, 1)
	if err != nil {
		return fmt.Errorf("cannot name the API server: first address of the service subnet: %w", err)
	}
	c.addNames(n.Init.NodeRegistration.Name,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+n.Cluster.Networking.DNSDomain,
		service.String(), n.Init.LocalAPIEndpoint.AdvertiseAddress)
	if e := n.Cluster.ControlPlaneEndpoint; e != "" {
		c.addNames(endpointHost(e))
	}
	c.addNames(n.Cluster.APIServer.CertSANs...)
	return nil
}

// addNames adds each name once, as an address where it is one.
func (c *Cert) addNames(names ...string) {
	for _, s := range names {
		ip := net.ParseIP(s)
		switch {
		case s == "":
		case ip == nil && !slices.Contains(c.DNS, s):
			c.DNS = append(c.DNS, s)
		case ip != nil && !slices.ContainsFunc(c.IPs, ip.Equal):
			c.IPs = append(c.IPs, ip)
		}
	}
}

// endpointHost is the host of a control-plane endpoint, HOST or HOST:PORT.
func endpointHost(e string) string {
	if host, _, err := net.SplitHostPort(e); err == nil {
		return host
	}
	return strings.Trim(e, "[]")
}

// CrtPath and KeyPath are the files of a certificate in the certificates
// directory dir.
func (c Cert) CrtPath(dir string) string { return path.Join(dir, c.Base+".crt") }
func (c Cert) KeyPath(dir string) string { return path.Join(dir, c.Base+".key") }
