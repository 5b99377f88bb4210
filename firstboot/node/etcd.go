package node

import (
	"context"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// EtcdRetry is how often etcd is asked again.
const EtcdRetry = 300 * time.Millisecond

// Etcd connects to the members of the cluster's local etcd but this node's
// own, which may be a learner, or not be there yet.
func (m *Machine) Etcd(ctx context.Context) (*cluster.Etcd, kubernetes.Interface, error) {
	c, _, err := m.AsAdmin()
	if err != nil {
		return nil, nil, err
	}
	urls, err := EtcdURLs(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	own := cluster.ClientURL(m.Node.Init.LocalAPIEndpoint.AdvertiseAddress)
	urls = slices.DeleteFunc(urls, func(u string) bool { return u == own })
	if len(urls) == 0 {
		return nil, nil, outcome.Retry{After: EtcdRetry, Why: "no other member of etcd is known yet"}
	}
	e, err := cluster.ConnectEtcd(m.Host, m.Node.Cluster.CertificatesDir, urls...)
	return e, c, err
}

// EtcdURLs are the client URLs of the members of the cluster's local etcd.
func EtcdURLs(ctx context.Context, c kubernetes.Interface) ([]string, error) {
	endpoints, err := APIEndpoints(ctx, c)
	if err != nil {
		return nil, err
	}
	return cluster.EtcdEndpoints(ctx, c, endpoints)
}

// OwnsMember says whether a member of etcd is this node's.
func (m *Machine) OwnsMember(member cluster.Member) bool {
	return slices.Contains(member.PeerURLs, cluster.PeerURL(m.Node.Init.LocalAPIEndpoint.AdvertiseAddress))
}
