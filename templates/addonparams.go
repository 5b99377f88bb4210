package templates

import (
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// dnsReplicas is kubeadm's number of CoreDNS pods.
const dnsReplicas = 2

// DisabledIn says whether the configuration of a cluster leaves the add-on to
// its administrators. One that is there already stays as it is, as with kubeadm.
func (a Addon) DisabledIn(c config.ClusterConfiguration) bool {
	return a == CoreDNS && c.DNS.Disabled || a == KubeProxy && c.Proxy.Disabled
}

// NewAddonParams are the parameters of the add-ons of a cluster that n is a
// control plane of, in a release. apiServer is the URL by which the API is
// reached.
func NewAddonParams(n *config.Node, rel images.Release, apiServer string) (AddonParams, error) {
	subnet, _, _ := strings.Cut(n.Cluster.Networking.ServiceSubnet, ",")
	dns, err := config.Nth(subnet, 10)
	if err != nil {
		return AddonParams{}, fmt.Errorf("cannot find the address of the cluster's DNS: %w", err)
	}
	proxy, err := config.MarshalKubeProxy(n, rel)
	if err != nil {
		return AddonParams{}, err
	}
	list := n.Cluster.ImageList()
	return AddonParams{
		Release:      rel,
		DNSImage:     rel.DNSImages(list)[0],
		DNSAddress:   dns.String(),
		DNSDomain:    n.Cluster.Networking.DNSDomain,
		DNSReplicas:  dnsReplicas,
		ProxyImage:   rel.KubernetesImage("kube-proxy", list),
		ProxyConfig:  string(proxy),
		APIServer:    apiServer,
		FlannelImage: rel.Flannel,
		PodSubnet:    n.Cluster.Networking.PodSubnet,
	}, nil
}
