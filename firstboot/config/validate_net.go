package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kbuild/kbuild/images"
)

func (v *validator) endpoint() {
	ep := v.node.Init.LocalAPIEndpoint
	const at = "init.localAPIEndpoint."
	a, err := netip.ParseAddr(ep.AdvertiseAddress)
	switch {
	case err != nil:
		v.bad(at+"advertiseAddress", fmt.Sprintf("%q is no IP address", printable(ep.AdvertiseAddress)), "write an address of this machine, or leave it out to have it chosen")
	case !a.IsGlobalUnicast():
		v.bad(at+"advertiseAddress", fmt.Sprintf("other machines cannot reach %s", a), "write a global unicast address of this machine")
	}
	if ep.BindPort < 1 || ep.BindPort > 65535 {
		v.bad(at+"bindPort", fmt.Sprintf("%d is no port", ep.BindPort), "write one between 1 and 65535, or leave it out for 6443")
	}
}

// Limits of Kubernetes: the API server keeps its service addresses in a bitmap
// of at most 2^20, and kubeadm wants room for the first ten.
const (
	minSubnetBits      = 4  // 2^4 addresses: more than ten
	maxServiceBits     = 20 // kube-apiserver --service-cluster-ip-range
	subnetExample      = "10.244.0.0/16"
	dualStackCondition = "one IPv4 and one IPv6 subnet"
)

func (v *validator) networking(baked images.Baked) {
	net := v.node.Cluster.Networking
	if errs := validation.IsDNS1123Subdomain(net.DNSDomain); len(errs) > 0 {
		v.bad("cluster.networking.dnsDomain", fmt.Sprintf("%q is no DNS domain", printable(net.DNSDomain)), "write one such as cluster.local")
	}
	service := v.subnets("cluster.networking.serviceSubnet", net.ServiceSubnet)
	for _, p := range service {
		if bits := p.Addr().BitLen() - p.Bits(); bits > maxServiceBits {
			v.bad("cluster.networking.serviceSubnet", fmt.Sprintf("%s is too large for the API server", p), fmt.Sprintf("write a mask of /%d or longer", p.Addr().BitLen()-maxServiceBits))
		}
	}
	var pods []netip.Prefix
	if net.PodSubnet != "" {
		pods = v.subnets("cluster.networking.podSubnet", net.PodSubnet)
		for _, p := range pods {
			v.nodeMask(p, baked.Release)
		}
	} else if baked.CNI == "flannel" {
		v.probs.add(Problem{Source: v.node.source("cluster.networking.podSubnet"), Field: "ClusterConfiguration networking.podSubnet", Missing: true,
			What:   "the image's pod network (flannel) needs a pod subnet, and its own, " + baked.PodCIDR + ", is not of the service subnet's IP family",
			Remedy: "set podSubnet to a subnet of the family of serviceSubnet"})
	}
	for _, s := range service {
		for _, p := range pods {
			if s.Overlaps(p) {
				v.bad("cluster.networking.podSubnet", fmt.Sprintf("%s overlaps the service subnet %s", p, s), "choose subnets that share no address")
			}
		}
	}
	v.addressFits(service, pods)
}

// subnets checks one subnet, or with dual-stack two.
func (v *validator) subnets(at, s string) []netip.Prefix {
	ps, err := prefixesOf(s)
	if err != nil {
		v.bad(at, printable(err.Error()), "write one such as "+subnetExample)
		return nil
	}
	switch {
	case !v.node.DualStack(v.rel) && len(ps) > 1:
		v.bad(at, "more than one subnet is for dual-stack clusters", "write one, or set `featureGates: {IPv6DualStack: true}`")
	case len(ps) > 2 || len(ps) == 2 && ps[0].Addr().Is4() == ps[1].Addr().Is4():
		v.bad(at, "a dual-stack cluster has one subnet, or one of each IP family", "write "+dualStackCondition+", separated by a comma")
	}
	for i, p := range ps {
		if p.Addr().BitLen()-p.Bits() < minSubnetBits {
			v.bad(at, fmt.Sprintf("%s has too few addresses", p), fmt.Sprintf("write a mask of /%d or shorter", p.Addr().BitLen()-minSubnetBits))
		}
		ps[i] = p.Masked()
	}
	return ps
}

// addressFits checks the node's own address against the cluster's subnets.
func (v *validator) addressFits(service, pods []netip.Prefix) {
	const at = "init.localAPIEndpoint.advertiseAddress"
	a, err := netip.ParseAddr(v.node.Init.LocalAPIEndpoint.AdvertiseAddress)
	if err != nil || len(service) == 0 {
		return
	}
	a = a.Unmap()
	if a.Is4() != service[0].Addr().Is4() {
		v.bad(at, fmt.Sprintf("%s is not of the IP family of the service subnet %s: the API server would refuse to start", a, service[0]), "give an address of that family, or another serviceSubnet")
	}
	for name, ps := range map[string][]netip.Prefix{"service": service, "pod": pods} {
		for _, p := range ps {
			if p.Contains(a) {
				v.bad(at, fmt.Sprintf("%s lies in the %s subnet %s", a, name, p), "choose another "+name+"Subnet")
			}
		}
	}
}

func (v *validator) sans(at string, names []string) {
	for i, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if len(validation.IsDNS1123Subdomain(name)) > 0 && len(validation.IsWildcardDNS1123Subdomain(name)) > 0 {
			v.bad(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%q is neither an address nor a DNS name", printable(name)), "write names and addresses only: no scheme, no port")
		}
	}
}

func (v *validator) etcd() {
	e := v.node.Cluster.Etcd
	const at = "cluster.etcd"
	if e.Local != nil && e.External != nil {
		v.bad(at, "local and external exclude each other", "keep one of the two")
		return
	}
	if l := e.Local; l != nil {
		v.absolute(at+".local.dataDir", l.DataDir)
		v.sans(at+".local.serverCertSANs", l.ServerCertSANs)
		v.sans(at+".local.peerCertSANs", l.PeerCertSANs)
		v.flags(at+".local.extraArgs", l.ExtraArgs)
		v.envs(at+".local.extraEnvs", l.ExtraEnvs)
	}
	x := e.External
	if x == nil {
		return
	}
	if (x.CertFile == "") != (x.KeyFile == "") {
		v.bad(at+".external", "certFile and keyFile go together", "give both or none")
	}
	if x.CertFile != "" && x.KeyFile != "" && x.CAFile == "" {
		v.bad(at+".external", "certFile and keyFile need caFile", "give the CA of the etcd servers")
	}
	for name, p := range map[string]string{"caFile": x.CAFile, "certFile": x.CertFile, "keyFile": x.KeyFile} {
		if p != "" {
			v.absolute(at+".external."+name, p)
		}
	}
	if len(x.Endpoints) == 0 {
		v.bad(at+".external.endpoints", "an external etcd needs endpoints", "list the URLs of its members")
	}
	secure := x.CAFile != "" || x.CertFile != "" || x.KeyFile != ""
	for i, s := range x.HTTPEndpoints {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			v.bad(fmt.Sprintf("%s.external.httpEndpoints[%d]", at, i), fmt.Sprintf("%q is no URL of an etcd member", printable(s)), "write one such as http://10.0.0.1:2381")
		}
	}
	for i, s := range x.Endpoints {
		at := fmt.Sprintf("%s.external.endpoints[%d]", at, i)
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "":
			v.bad(at, fmt.Sprintf("%q is no URL of an etcd member", printable(s)), "write one such as https://10.0.0.1:2379")
		case secure && u.Scheme != "https", u.Scheme != "https" && u.Scheme != "http":
			v.bad(at, fmt.Sprintf("scheme %q cannot be used here", printable(u.Scheme)), "write an https:// URL (http:// only without caFile, certFile and keyFile)")
		}
	}
}

// components compares the kubelet's and kube-proxy's settings with what
// kubeadm recommends.
func (v *validator) components() {
	n := v.node
	check := func(doc map[string]any, kind, path string, want any) {
		m := doc
		names := strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			m, _ = m[name].(map[string]any)
		}
		if have, ok := m[names[len(names)-1]]; ok && fmt.Sprint(have) != fmt.Sprint(want) {
			v.warn("%s %s is %v; kubeadm recommends %v", kind, path, have, want)
		}
	}
	const kubelet, proxy = "KubeletConfiguration", "KubeProxyConfiguration"
	check(n.Kubelet, kubelet, "staticPodPath", "/etc/kubernetes/manifests")
	check(n.Kubelet, kubelet, "clusterDNS", []any{n.dnsIP()})
	check(n.Kubelet, kubelet, "clusterDomain", n.Cluster.Networking.DNSDomain)
	check(n.Kubelet, kubelet, "authentication.x509.clientCAFile", strings.TrimSuffix(n.Cluster.CertificatesDir, "/")+"/ca.crt")
	check(n.Kubelet, kubelet, "authentication.anonymous.enabled", false)
	check(n.Kubelet, kubelet, "authentication.webhook.enabled", true)
	check(n.Kubelet, kubelet, "authorization.mode", "Webhook")
	check(n.Kubelet, kubelet, "healthzBindAddress", "127.0.0.1")
	check(n.Kubelet, kubelet, "healthzPort", 10248)
	check(n.Kubelet, kubelet, "readOnlyPort", 0)
	if n.Cluster.Networking.PodSubnet != "" {
		check(n.KubeProxy, proxy, "clusterCIDR", n.Cluster.Networking.PodSubnet)
	}
	check(n.KubeProxy, proxy, "clientConnection.kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf")
	d, _ := n.Kubelet["cgroupDriver"].(string)
	v.cgroupDriver("kubelet.cgroupDriver", d)
	switch m, _ := n.KubeProxy["mode"].(string); m {
	case "", "iptables", "ipvs":
	default:
		modes := []string{"iptables", "ipvs"}
		if v.rel.Has(images.FactNFTables) {
			modes = append(modes, "nftables")
		}
		if v.rel.Has(images.FactUserspaceProxy) {
			modes = append(modes, "userspace")
		}
		if !slices.Contains(modes, m) {
			v.bad("kubeProxy.mode", fmt.Sprintf("%q is no mode of kube-proxy %s", printable(m), v.rel.Version), "modes are "+list(modes)+"; or leave it out")
		}
	}
}
