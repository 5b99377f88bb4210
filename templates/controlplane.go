package templates

import (
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

const dualStack = "IPv6DualStack" // feature gate

// APIServerAlive is the path at which every version's API server says whether it
// is alive, and what it lacks.
const APIServerAlive = "/livez"

func (p PodParams) apiServer() *corev1.Pod {
	c, local := p.Node.Cluster, p.Node.Init.LocalAPIEndpoint
	args := map[string]string{
		"advertise-address":                  local.AdvertiseAddress,
		"allow-privileged":                   "true",
		"client-ca-file":                     p.pki("ca.crt"),
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"kubelet-client-certificate":         p.pki("apiserver-kubelet-client.crt"),
		"kubelet-client-key":                 p.pki("apiserver-kubelet-client.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file":             p.pki("front-proxy-client.crt"),
		"proxy-client-key-file":              p.pki("front-proxy-client.key"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-client-ca-file":       p.pki("front-proxy-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"secure-port":                        fmt.Sprint(local.BindPort),
		"service-account-key-file":           p.pki("sa.pub"),
		"service-cluster-ip-range":           c.Networking.ServiceSubnet,
		"tls-cert-file":                      p.pki("apiserver.crt"),
		"tls-private-key-file":               p.pki("apiserver.key"),
	}
	if p.Release.Has(images.FactAPIServerInsecurePort) {
		args["insecure-port"] = "0"
	}
	if p.Release.Has(images.FactServiceAccountIssuer) {
		args["service-account-issuer"] = "https://kubernetes.default.svc." + c.Networking.DNSDomain
		args["service-account-signing-key-file"] = p.pki("sa.key")
	}
	vols := volumes{}
	vols.dir("k8s-certs", c.CertificatesDir, true)
	p.caCerts(vols)
	if e := c.Etcd.External; e != nil {
		args["etcd-servers"] = strings.Join(e.Endpoints, ",")
		if e.CAFile != "" {
			args["etcd-cafile"] = e.CAFile
		}
		if e.CertFile != "" && e.KeyFile != "" {
			args["etcd-certfile"], args["etcd-keyfile"] = e.CertFile, e.KeyFile
		}
		p.etcdCerts(vols, e)
	} else {
		args["etcd-servers"] = "https://" + hostPort(p.localhost(), etcdClientPort)
		args["etcd-cafile"] = p.pki("etcd/ca.crt")
		args["etcd-certfile"] = p.pki("apiserver-etcd-client.crt")
		args["etcd-keyfile"] = p.pki("apiserver-etcd-client.key")
		if l := c.Etcd.Local; l != nil && l.ExtraArgs.Get("advertise-client-urls") != "" {
			args["etcd-servers"] = l.ExtraArgs.Get("advertise-client-urls")
		}
	}
	p.featureGates(args)
	extra := p.authorization(args, c.APIServer.ExtraArgs)
	vols.extra(c.APIServer.ExtraVolumes)

	host, port := probeAddress(local.AdvertiseAddress), int(local.BindPort)
	if local.AdvertiseAddress == "" {
		host = "127.0.0.1"
	}
	return p.component(corev1.Container{
		Name:      APIServer,
		Image:     p.Release.KubernetesImage(APIServer, p.Node.Cluster.ImageList()),
		Command:   append([]string{"kube-apiserver"}, p.arguments(args, extra)...),
		Resources: requests("250m"),
		Env:       environment(p.proxies(), c.APIServer.ExtraEnvs),
	}, health{host, port, corev1.URISchemeHTTPS, APIServerAlive, "/readyz", APIServerAlive}, vols, map[string]string{
		"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": net.JoinHostPort(local.AdvertiseAddress, fmt.Sprint(port)),
	})
}

// authorization sets the API server's authorization-mode, in args or in what is
// returned of the user's flags: what is unknown in the user's is left out where
// kubeadm keeps the result as the user's own. A user's authorization-config
// excludes the flag.
func (p PodParams) authorization(args map[string]string, user config.Args) config.Args {
	const mode, file = "authorization-mode", "authorization-config"
	if p.Release.Has(images.FactAuthorizationModeInConfig) {
		changed := config.Args{}
		maps.Copy(changed, user)
		changed.Set(mode, authorizationModes(user.Get(mode)))
		return changed
	}
	if _, given := user[file]; !given {
		args[mode] = authorizationModes("")
	}
	return user
}

// authorizationModes are the user's, if any of them is one that the API server
// knows, else kubeadm's.
func authorizationModes(user string) string {
	known := []string{"Node", "RBAC", "Webhook", "ABAC", "AlwaysAllow", "AlwaysDeny"}
	var modes []string
	for m := range strings.SplitSeq(user, ",") {
		if slices.Contains(known, m) {
			modes = append(modes, m)
		}
	}
	if len(modes) == 0 {
		return "Node,RBAC"
	}
	return strings.Join(modes, ",")
}

// etcdCerts mounts the directories of an external etcd's certificates, unless
// they are mounted already; of nested ones the outermost.
func (p PodParams) etcdCerts(v volumes, e *config.ExternalEtcd) {
	mounted := append(p.caCertDirs(), "/etc/ssl/certs", p.Node.Cluster.CertificatesDir)
	var dirs []string
	for _, file := range []string{e.CAFile, e.CertFile, e.KeyFile} {
		dir := path.Dir(file)
		within := func(outer string) bool { return strings.HasPrefix(dir, outer) }
		if dir == "." || slices.ContainsFunc(mounted, within) || slices.ContainsFunc(dirs, within) {
			continue
		}
		dirs = slices.DeleteFunc(dirs, func(d string) bool { return strings.HasPrefix(d, dir) })
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	for i, d := range dirs {
		v.dir(fmt.Sprintf("etcd-certs-%d", i), d, true)
	}
}

// How many requests a second each controller may make, and how many at once. A
// node that joins costs the approving controller two; with the default of 20 a
// second, a hundred nodes that boot together would delay one another.
// OpenShift gives its controllers as much and more (150 and 300).
const (
	ControllerManagerQPS   = "100"
	ControllerManagerBurst = "200"
)

func (p PodParams) controllerManager() *corev1.Pod {
	c := p.Node.Cluster
	conf := "/etc/kubernetes/controller-manager.conf"
	args := map[string]string{
		"authentication-kubeconfig":        conf,
		"authorization-kubeconfig":         conf,
		"bind-address":                     "127.0.0.1",
		"client-ca-file":                   p.pki("ca.crt"),
		"cluster-signing-cert-file":        p.pki("ca.crt"),
		"cluster-signing-key-file":         p.pki("ca.key"),
		"controllers":                      "*,bootstrapsigner,tokencleaner",
		"kube-api-burst":                   ControllerManagerBurst,
		"kube-api-qps":                     ControllerManagerQPS,
		"kubeconfig":                       conf,
		"leader-elect":                     "true",
		"requestheader-client-ca-file":     p.pki("front-proxy-ca.crt"),
		"root-ca-file":                     p.pki("ca.crt"),
		"service-account-private-key-file": p.pki("sa.key"),
		"use-service-account-credentials":  "true",
	}
	if p.Release.Has(images.FactInsecurePort) {
		args["port"] = "0"
	}
	if p.ExternalCA { // the signing controller cannot work without a key
		args["cluster-signing-cert-file"], args["cluster-signing-key-file"] = "", ""
	}
	if c.ClusterName != "" {
		args["cluster-name"] = c.ClusterName
	}
	p.podSubnet(args)
	p.featureGates(args)

	vols := volumes{}
	vols.dir("k8s-certs", c.CertificatesDir, true)
	p.caCerts(vols)
	vols.file("kubeconfig", conf)
	if p.Release.Has(images.FactFlexVolume) {
		flex := "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
		if dir := c.ControllerManager.ExtraArgs.Get("flex-volume-plugin-dir"); dir != "" {
			flex = dir
		}
		vols.dir("flexvolume-dir", flex, false)
	}
	vols.extra(c.ControllerManager.ExtraVolumes)
	at := health{port: 10257, alive: "/healthz", started: "/healthz"}
	return p.local(ControllerManager, "200m", at, args, c.ControllerManager, vols)
}

func (p PodParams) scheduler() *corev1.Pod {
	conf := "/etc/kubernetes/scheduler.conf"
	args := map[string]string{
		"authentication-kubeconfig": conf,
		"authorization-kubeconfig":  conf,
		"bind-address":              "127.0.0.1",
		"kubeconfig":                conf,
		"leader-elect":              "true",
	}
	if p.Release.Has(images.FactInsecurePort) {
		args["port"] = "0"
	}
	p.featureGates(args)
	vols := volumes{}
	vols.file("kubeconfig", conf)
	vols.extra(p.Node.Cluster.Scheduler.ExtraVolumes)
	at := health{port: 10259, alive: "/healthz", started: "/healthz"}
	if p.Release.Has(images.FactSchedulerReadyz) {
		at.alive, at.ready, at.started = "/livez", "/readyz", "/livez"
	}
	return p.local(Scheduler, "100m", at, args, p.Node.Cluster.Scheduler, vols)
}

// local is the pod of a component that serves its health on loopback.
func (p PodParams) local(name, cpu string, at health, args map[string]string, c config.ControlPlaneComponent, vols volumes) *corev1.Pod {
	at.host, at.scheme = "127.0.0.1", corev1.URISchemeHTTPS
	if bind := c.ExtraArgs.Get("bind-address"); bind != "" {
		at.host = probeAddress(bind)
	}
	return p.component(corev1.Container{
		Name:      name,
		Image:     p.Release.KubernetesImage(name, p.Node.Cluster.ImageList()),
		Command:   append([]string{name}, p.arguments(args, c.ExtraArgs)...),
		Resources: requests(cpu),
		Env:       environment(p.proxies(), c.ExtraEnvs),
	}, at, vols, nil)
}

// featureGates passes the dual-stack gate on where the user set it.
func (p PodParams) featureGates(args map[string]string) {
	if on, set := p.Node.Cluster.FeatureGates[dualStack]; set && p.Release.Has(images.FactDualStackGate) {
		args["feature-gates"] = fmt.Sprintf("%s=%t", dualStack, on)
	}
}
