package preflight

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// Ports and amounts of kubeadm (cmd/kubeadm/app/constants).
const (
	portKubelet           = 10250
	portScheduler         = 10259
	portControllerManager = 10257
	portEtcdClient        = 2379
	portEtcdPeer          = 2380
	minCPUs               = 2
	minMemory             = 1700 << 20
	manifests             = "/etc/kubernetes/manifests/"
)

// Init returns the checks of a first control plane.
func Init(on *node.Machine) []Check {
	m := machine{on}
	checks := append(m.any(), m.controlPlane()...)
	checks = append(checks, m.common()...)
	if a, err := netip.ParseAddr(m.Node.Init.LocalAPIEndpoint.AdvertiseAddress); err == nil && a.Unmap().Is6() {
		checks = append(checks, m.ipv6()...)
	}
	if m.Node.Cluster.Etcd.External != nil {
		checks = append(checks, Check{"ExternalEtcdVersion", m.externalEtcd})
	}
	return append(checks, Check{"ImagePull", m.images})
}

// any are the checks of whatever node that kubeadm makes first or has not.
func (m machine) any() []Check {
	return []Check{{"IsPrivilegedUser", m.root}, {"VarSpace", m.space}, {"BootTime", m.clock}}
}

// controlPlane are those of a machine that shall run a control plane.
func (m machine) controlPlane() []Check {
	n := m.Node
	checks := []Check{
		{"NumCPU", m.cpus},
		{"Mem", m.memory},
		{"Firewalld", m.firewalld},
	}
	port := func(p int) { checks = append(checks, m.portFree(p)) }
	port(int(n.Init.LocalAPIEndpoint.BindPort))
	port(portScheduler)
	port(portControllerManager)
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		checks = append(checks, m.absent(manifests+name+".yaml"))
	}
	checks = append(checks, Check{"HTTPProxy", m.proxyHost})
	for _, s := range subnets(n.Cluster.Networking.ServiceSubnet, n.Cluster.Networking.PodSubnet) {
		checks = append(checks, Check{"HTTPProxyCIDR", func(_ context.Context, f *Findings) { m.proxySubnet(f, s) }})
	}
	if mode, _ := n.KubeProxy["mode"].(string); mode == "ipvs" {
		checks = append(checks, Check{"IPVS", m.ipvs})
	}
	if x := n.Cluster.Etcd.External; x != nil && (!n.Role.Joins() || n.Init.CertificateKey == "") {
		for _, file := range []string{x.CAFile, x.CertFile, x.KeyFile} {
			if file != "" {
				checks = append(checks, Check{"ExternalEtcdClientCertificates", func(_ context.Context, f *Findings) { m.exists(f, file) }})
			}
		}
	}
	if l := n.Cluster.Etcd.Local; l != nil {
		port(portEtcdClient)
		port(portEtcdPeer)
		checks = append(checks, m.empty(l.DataDir))
	}
	return checks
}

// common are those that kubeadm makes for init and join alike.
func (m machine) common() []Check {
	checks := []Check{{"CRI", m.cri},
		m.is1("/proc/sys/net/bridge/bridge-nf-call-iptables"), m.is1("/proc/sys/net/ipv4/ip_forward"),
		{"Swap", m.swap}}
	for _, name := range []string{"conntrack", "ip", "iptables", "mount", "nsenter"} {
		checks = append(checks, m.executable(name, true))
	}
	for _, name := range []string{"ethtool", "socat", "touch"} {
		checks = append(checks, m.executable(name, false))
	}
	return append(checks, Check{"SystemVerification", m.kernel}, Check{"Hostname", m.hostname}, Check{"KubeletVersion", m.kubelet}, m.portFree(portKubelet))
}

// ipv6 are those of a machine that speaks IPv6 to its cluster.
func (m machine) ipv6() []Check {
	return []Check{m.is1("/proc/sys/net/bridge/bridge-nf-call-ip6tables"), m.is1("/proc/sys/net/ipv6/conf/default/forwarding")}
}

func (m machine) portFree(p int) Check {
	return Check{fmt.Sprintf("Port-%d", p), func(_ context.Context, f *Findings) { m.port(f, p) }}
}

func subnets(lists ...string) []string {
	var out []string
	for _, l := range lists {
		for _, s := range strings.Split(l, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func (m machine) root(_ context.Context, f *Findings) {
	if uid := m.Host.Probe.UID(); uid != 0 {
		f.fail("run it as root, as kbuild-firstboot.service does", "the user is not root but has ID %d", uid)
	}
}

func (m machine) cpus(_ context.Context, f *Findings) {
	if n := m.Host.Probe.CPUs(); n < minCPUs {
		f.fail("give the machine more, or expect a slow control plane", "the machine has %d CPU, a control plane needs %d", n, minCPUs)
	}
}

func (m machine) firewalld(ctx context.Context, f *Findings) {
	state, err := m.Host.Systemd.Active(ctx, "firewalld.service")
	if err == nil && state == "active" {
		f.warn("let these ports through", "firewalld is active; ports %d and %d must be open", m.Node.Init.LocalAPIEndpoint.BindPort, portKubelet)
	}
}

func (m machine) port(f *Findings, port int) {
	if err := m.Host.Probe.Free(port); err != nil {
		f.fail("stop what listens there, or boot the node anew", "%v", err)
	}
}

// images looks every needed image up in the store that the image carries.
func (m machine) images(_ context.Context, f *Findings) {
	need, err := Images(m.Machine)
	if err != nil {
		f.fail("", "%v", err)
		return
	}
	have := map[string]bool{}
	for _, i := range m.Baked.Images {
		have[i] = true
	}
	for _, i := range need {
		if !have[i] {
			f.fail("build the image with this configuration (kbuild image --config), or with --include-image "+i, "image %s is not in this node image", i)
		}
	}
}

// Images names the container images that the node's control plane needs.
func Images(m *node.Machine) ([]string, error) {
	return images.List(m.Baked.Release, m.Node.Cluster.ImageList())
}
