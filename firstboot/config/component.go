package config

import (
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// resolvedConf lists the servers that systemd-resolved asks; the stub that
// /etc/resolv.conf names is a loopback address, of no use in a pod.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// dualStackGate is kubeadm's feature gate, in the versions that have one.
const dualStackGate = "IPv6DualStack"

// DualStack says whether the cluster may have subnets of two IP families.
func (n *Node) DualStack(rel images.Release) bool {
	if on, given := n.Cluster.FeatureGates[dualStackGate]; given && rel.Has(images.FactDualStackGate) {
		return on
	}
	return rel.Has(images.FactDualStack)
}

// at returns the map at a path of m, made if missing.
func at(m map[string]any, names ...string) map[string]any {
	for _, name := range names {
		sub, ok := m[name].(map[string]any)
		if !ok {
			sub = map[string]any{}
			m[name] = sub
		}
		m = sub
	}
	return m
}

// fill sets a field of a component's configuration if it is absent, or empty
// text or list, which the typed configuration cannot tell from absent.
func (n *Node) fill(prefix string, m map[string]any, path string, v any) {
	names := strings.Split(path, ".")
	m = at(m, names[:len(names)-1]...)
	last := names[len(names)-1]
	have, ok := m[last]
	if s, text := have.(string); !ok || (text && s == "") {
		m[last] = v
		n.Sources[prefix+"."+path] = sourceDefault
	}
}

// defaultKubelet fills in what kubeadm does (componentconfigs/kubelet.go), and
// the cgroup driver of the image's containerd.
func defaultKubelet(n *Node, rel images.Release, m Machine) {
	k := n.Kubelet
	fill := func(path string, v any) { n.fill("kubelet", k, path, v) }
	if on, ok := n.Cluster.FeatureGates[dualStackGate]; ok && rel.Has(images.FactDualStackGate) {
		at(k, "featureGates")[dualStackGate] = on
	}
	fill("staticPodPath", "/etc/kubernetes/manifests")
	fill("clusterDNS", []any{n.dnsIP()})
	fill("clusterDomain", n.Cluster.Networking.DNSDomain)
	fill("authentication.x509.clientCAFile", path.Join(n.Cluster.CertificatesDir, "ca.crt"))
	fill("authentication.anonymous.enabled", false)
	fill("authentication.webhook.enabled", true)
	fill("authorization.mode", "Webhook")
	fill("healthzBindAddress", "127.0.0.1")
	fill("healthzPort", int64(10248))
	k["rotateCertificates"] = true // kubeadm does not let it be switched off
	if m.Resolved {
		fill("resolvConf", resolvedConf)
	}
	fill("cgroupDriver", n.cgroupDriver())
}

// dnsIP is the tenth address of the (first) service subnet.
func (n *Node) dnsIP() string {
	subnet, _, _ := strings.Cut(n.Cluster.Networking.ServiceSubnet, ",")
	if a, err := Nth(subnet, 10); err == nil {
		return a.String()
	}
	return "10.96.0.10"
}

// Nth is the address at index i of a subnet: 1 is the API's service, 10 the
// cluster's DNS.
func Nth(subnet string, i int) (netip.Addr, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(subnet))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot read subnet %q: want one like 10.96.0.0/12", subnet)
	}
	a := p.Masked().Addr()
	for range i {
		a = a.Next()
	}
	if !p.Contains(a) {
		return netip.Addr{}, fmt.Errorf("subnet %s is too small: it has no address %d", subnet, i)
	}
	return a, nil
}

// defaultKubeProxy fills in what kubeadm does (componentconfigs/kubeproxy.go).
func defaultKubeProxy(n *Node, rel images.Release) {
	fill := func(path string, v any) { n.fill("kubeProxy", n.KubeProxy, path, v) }
	bind := "0.0.0.0"
	if a, err := netip.ParseAddr(n.Init.LocalAPIEndpoint.AdvertiseAddress); err != nil || a.Unmap().Is6() {
		bind = "::"
	}
	fill("bindAddress", bind)
	if n.Cluster.Networking.PodSubnet != "" {
		fill("clusterCIDR", n.Cluster.Networking.PodSubnet)
	}
	fill("clientConnection.kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf")
	if rel.Has(images.FactProxyMode) {
		fill("mode", "iptables")
	}
	if on, ok := n.Cluster.FeatureGates[dualStackGate]; ok && rel.Has(images.FactDualStackGate) {
		at(n.KubeProxy, "featureGates")[dualStackGate] = on
	}
}
