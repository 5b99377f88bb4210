package templates

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbuild/kbuild/images"
)

// etcd's ports, as kubeadm uses them.
const (
	etcdClientPort  = 2379
	etcdPeerPort    = 2380
	etcdMetricsPort = 2381
)

// EtcdMember is a member of a local etcd, as --initial-cluster has it.
type EtcdMember struct {
	Name    string `json:"name"`
	PeerURL string `json:"peerURL"`
}

// EtcdPod is a member of a cluster's local etcd: the first one, or one that
// joins p.EtcdMembers, which it is part of.
func EtcdPod(p PodParams) *corev1.Pod {
	local := p.Node.Cluster.Etcd.Local
	name, addr := p.Node.Init.NodeRegistration.Name, p.Node.Init.LocalAPIEndpoint.AdvertiseAddress
	client := "https://" + hostPort(addr, etcdClientPort)
	peer := "https://" + hostPort(addr, etcdPeerPort)
	args := map[string]string{
		"advertise-client-urls":       client,
		"cert-file":                   p.pki("etcd/server.crt"),
		"client-cert-auth":            "true",
		"data-dir":                    local.DataDir,
		"initial-advertise-peer-urls": peer,
		"initial-cluster":             name + "=" + peer,
		"key-file":                    p.pki("etcd/server.key"),
		"listen-client-urls":          "https://" + hostPort(p.localhost(), etcdClientPort) + "," + client,
		"listen-metrics-urls":         "http://" + hostPort(p.localhost(), etcdMetricsPort),
		"listen-peer-urls":            peer,
		"name":                        name,
		"peer-cert-file":              p.pki("etcd/peer.crt"),
		"peer-client-cert-auth":       "true",
		"peer-key-file":               p.pki("etcd/peer.key"),
		"peer-trusted-ca-file":        p.pki("etcd/ca.crt"),
		"snapshot-count":              "10000",
		"trusted-ca-file":             p.pki("etcd/ca.crt"),
	}
	if len(p.EtcdMembers) > 0 {
		var list []string
		for _, m := range p.EtcdMembers {
			list = append(list, m.Name+"="+m.PeerURL)
		}
		args["initial-cluster"] = strings.Join(list, ",")
		args["initial-cluster-state"] = "existing"
	}
	p.etcdChecks(args)
	vols := volumes{}
	vols.dir("etcd-data", local.DataDir, false)
	vols.dir("etcd-certs", p.pki("etcd"), false)
	c := corev1.Container{
		Name:    Etcd,
		Image:   p.Release.EtcdImage(p.Node.Cluster.ImageList()),
		Command: append([]string{"etcd"}, p.arguments(args, local.ExtraArgs)...),
		Env:     environment(local.ExtraEnvs),
	}
	if p.Release.Has(images.FactEtcdRequests) {
		c.Resources = requests("100m")
		c.Resources.Requests[corev1.ResourceMemory] = resource.MustParse("100Mi")
	}
	pod := p.component(c, p.etcdHealth(), vols, map[string]string{"kubeadm.kubernetes.io/etcd.advertise-client-urls": client})
	slices.Reverse(pod.Spec.Containers[0].VolumeMounts) // data first, as kubeadm has it
	return pod
}

// etcdChecks lets etcd look for corruption before it serves, and tell watchers
// how far it is; both were experimental before etcd 3.6.
func (p PodParams) etcdChecks(args map[string]string) {
	experimental := "experimental-"
	if p.Release.EtcdFeatureGates(p.Node.Cluster.ImageList()) {
		experimental = ""
	}
	if p.Release.Has(images.FactEtcdWatchProgress) {
		args[experimental+"watch-progress-notify-interval"] = "5s"
	}
	if p.Release.Has(images.FactEtcdCorruptCheck) {
		if experimental == "" {
			args["feature-gates"] = "InitialCorruptCheck=true"
		} else {
			args["experimental-initial-corrupt-check"] = "true"
		}
	}
}

// etcdHealth is where etcd serves its health: at the first of the user's
// listen-metrics-urls, or where kubeadm has it.
func (p PodParams) etcdHealth() health {
	e := health{host: p.localhost(), port: etcdMetricsPort, scheme: corev1.URISchemeHTTP, alive: "/health", started: "/health"}
	switch {
	case p.Release.Has(images.FactEtcdLivez):
		e.alive, e.ready, e.started = "/livez", "/readyz", "/readyz"
	case p.Release.Has(images.FactEtcdHealthQuery):
		e.alive, e.started = "/health?exclude=NOSPACE&serializable=true", "/health?serializable=false"
	}
	arg := p.Node.Cluster.Etcd.Local.ExtraArgs.Get("listen-metrics-urls")
	if arg == "" {
		return e
	}
	first, _, _ := strings.Cut(arg, ",")
	u, err := url.Parse(first)
	if err != nil {
		return e
	}
	if u.Scheme == "https" {
		e.scheme = corev1.URISchemeHTTPS
	}
	if h := u.Hostname(); h != "" {
		e.host = h
	}
	if _, port, err := net.SplitHostPort(u.Host); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 1<<16 {
			e.port = n
		}
	}
	return e
}
