package config

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/images"
)

// What kubeadm fills in (cmd/kubeadm/app/apis/kubeadm/v1beta2/defaults.go and
// cmd/kubeadm/app/constants).
const (
	defaultServiceSubnet = "10.96.0.0/12"
	defaultDNSDomain     = "cluster.local"
	defaultBindPort      = 6443
	defaultCertsDir      = "/etc/kubernetes/pki"
	defaultClusterName   = "kubernetes"
	defaultEtcdDir       = "/var/lib/etcd"
	defaultTimeout       = 4 * time.Minute
	defaultKeyAlgorithm  = "RSA-2048"
	defaultTokenTTL      = 24 * time.Hour
	authorizationMode    = "authorization-mode"
	defaultTokenGroup    = "system:bootstrappers:kubeadm:default-node-token"
	// CRISocket is where the image's containerd listens.
	CRISocket = "/run/containerd/containerd.sock"
)

// sourceDefault is what Node.Sources says of a value that kubeadm sets too.
const sourceDefault = "default"

// Default fills in what is missing from n, as kubeadm of the image's version
// would on this machine, with these differences:
//   - without a default route the one usable address is advertised;
//   - a machine without a host name is named after its machine ID;
//   - the CRI socket is the image's containerd, it is not searched for;
//   - the kubelet's cgroup driver is that of the machine's containerd;
//   - the pod subnet is the one that the image's pod network names;
//   - a token that has an expiry date gets no TTL besides (kubeadm sets one
//     and then refuses the two).
//
// The error is ErrNoAddress or Problems.
func Default(n *Node, baked images.Baked, m Machine) error {
	if n.Sources == nil {
		n.Sources = map[string]string{}
	}
	n.CgroupDriver = m.CgroupDriver
	probs := checkVersion(n, baked)
	if n.Role.Joins() {
		defaultJoin(n)
	} else {
		defaultCluster(n, baked)
		if err := defaultTokens(n, m.Random); err != nil {
			return err
		}
	}
	more, err := asProblems(defaultInit(n, baked, m))
	if err != nil {
		return cmp.Or(probs.err(), err)
	}
	probs = append(probs, more...)
	if n.Role.Joins() {
		return probs.err()
	}
	// These need what the two above found.
	if e := n.Cluster.ControlPlaneEndpoint; e != "" {
		if host, port, err := parseHostPort(e); err == nil && port == "" {
			n.Cluster.ControlPlaneEndpoint = net.JoinHostPort(host, strconv.Itoa(int(n.Init.LocalAPIEndpoint.BindPort)))
		}
	}
	defaultKubelet(n, baked.Release, m)
	defaultKubeProxy(n, baked.Release)
	return probs.err()
}

// set gives *v the value def if it is empty.
func set[T comparable](n *Node, path string, v *T, def T, source string) {
	var zero T
	if *v == zero {
		*v = def
		n.Sources[path] = source
	}
}

// checkVersion refuses another Kubernetes version than the image's.
func checkVersion(n *Node, baked images.Baked) (probs Problems) {
	c := &n.Cluster
	rel := baked.Release
	if v := c.KubernetesVersion; v != "" && "v"+strings.TrimPrefix(v, "v") != rel.Version {
		remedy := "remove the field, or boot an image of that version"
		if strings.TrimPrefix(v, "v") == fmt.Sprintf("1.%d.0", rel.Minor()) {
			remedy += fmt.Sprintf(" (`kubeadm config print init-defaults` prints %s for every v1.%d)", v, rel.Minor())
		}
		probs.add(Problem{Source: n.source("cluster.kubernetesVersion"), Field: "ClusterConfiguration kubernetesVersion",
			What: fmt.Sprintf("%q is not the version of this image, which is %s", printable(v), rel.Version), Remedy: remedy})
	}
	set(n, "cluster.kubernetesVersion", &c.KubernetesVersion, rel.Version, "image")
	c.KubernetesVersion = rel.Version
	return probs
}

func defaultCluster(n *Node, baked images.Baked) {
	c := &n.Cluster
	set(n, "cluster.networking.serviceSubnet", &c.Networking.ServiceSubnet, defaultServiceSubnet, sourceDefault)
	set(n, "cluster.networking.dnsDomain", &c.Networking.DNSDomain, defaultDNSDomain, sourceDefault)
	if baked.PodCIDR != "" && sharesFamily(c.Networking.ServiceSubnet, baked.PodCIDR) {
		set(n, "cluster.networking.podSubnet", &c.Networking.PodSubnet, baked.PodCIDR, "image's pod network ("+baked.CNI+")")
	}
	set(n, "cluster.certificatesDir", &c.CertificatesDir, defaultCertsDir, sourceDefault)
	set(n, "cluster.imageRepository", &c.ImageRepository, baked.Registry(), sourceDefault)
	set(n, "cluster.clusterName", &c.ClusterName, defaultClusterName, sourceDefault)
	set(n, "cluster.dns.type", &c.DNS.Type, "CoreDNS", sourceDefault)
	if c.Etcd.External == nil && c.Etcd.Local == nil {
		c.Etcd.Local = &LocalEtcd{}
	}
	if c.Etcd.Local != nil {
		set(n, "cluster.etcd.local.dataDir", &c.Etcd.Local.DataDir, defaultEtcdDir, sourceDefault)
	}
	if c.APIServer.TimeoutForControlPlane == nil && !hasLists(baked.Release.ConfigAPI) {
		c.APIServer.TimeoutForControlPlane = &metav1.Duration{Duration: defaultTimeout}
		n.Sources["cluster.apiServer.timeoutForControlPlane"] = sourceDefault
	}
	// kubeadm sets this while it writes the API server's manifest, and so it
	// stands in the ConfigMap as well.
	if c.APIServer.ExtraArgs.Get(authorizationMode) == "" && baked.Release.Has(images.FactAuthorizationModeInConfig) {
		if c.APIServer.ExtraArgs == nil {
			c.APIServer.ExtraArgs = Args{}
		}
		c.APIServer.ExtraArgs.Set(authorizationMode, "Node,RBAC")
		n.Sources["cluster.apiServer.extraArgs."+authorizationMode] = sourceDefault
	}
	for i, san := range c.APIServer.CertSANs {
		c.APIServer.CertSANs[i] = strings.ToLower(san)
	}
}

func defaultInit(n *Node, baked images.Baked, m Machine) error {
	c := &n.Init
	reg := &c.NodeRegistration
	reg.Name = strings.ToLower(strings.TrimSpace(reg.Name))
	if reg.Name == "" {
		name, how, err := m.name()
		if err != nil {
			return err
		}
		reg.Name = name
		n.Sources["init.nodeRegistration.name"] = how
	}
	set(n, "init.nodeRegistration.criSocket", &reg.CRISocket, CRISocket, "image")
	switch {
	case reg.Taints == nil && n.Role == RoleWorker:
		reg.Taints = []corev1.Taint{}
		n.Sources["init.nodeRegistration.taints"] = sourceDefault
	case reg.Taints == nil:
		reg.Taints = DefaultTaints(baked.Release)
		n.Sources["init.nodeRegistration.taints"] = sourceDefault
	}
	set(n, "init.localAPIEndpoint.bindPort", &c.LocalAPIEndpoint.BindPort, defaultBindPort, sourceDefault)
	return defaultAddress(n, m)
}

// defaultAddress chooses the advertise address where none is given. As for
// kubeadm, the unspecified address means "choose", and a loopback address
// means the global address on the loopback interface.
func defaultAddress(n *Node, m Machine) error {
	const path = "init.localAPIEndpoint.advertiseAddress"
	ep := &n.Init.LocalAPIEndpoint
	ip, err := netip.ParseAddr(ep.AdvertiseAddress)
	switch {
	case ep.AdvertiseAddress != "" && err != nil:
		return nil // Validate refuses it
	case ep.AdvertiseAddress != "" && ip.IsLoopback():
		a := m.loopback(ip.Is6())
		if !a.IsValid() {
			a = m.loopback(!ip.Is6())
		}
		if !a.IsValid() {
			return Problems{{Source: n.source(path), Field: fieldName(path, n.Role), What: "the loopback interface has no global address to stand for " + ip.String(), Remedy: "give an address that other machines reach"}}
		}
		ep.AdvertiseAddress = a.String()
		return nil
	case ep.AdvertiseAddress != "" && !ip.IsUnspecified():
		ep.AdvertiseAddress = ip.Unmap().String()
		return nil
	}
	first, _, _ := strings.Cut(n.Cluster.Networking.ServiceSubnet, ",")
	subnet, _ := netip.ParsePrefix(strings.TrimSpace(first))
	a, how, err := m.address(subnet.IsValid() && subnet.Addr().Is6())
	if err != nil {
		return err
	}
	ep.AdvertiseAddress = a.String()
	n.Sources[path] = how
	return nil
}

func defaultTokens(n *Node, random io.Reader) error {
	if len(n.Init.BootstrapTokens) == 0 {
		n.Init.BootstrapTokens = []BootstrapToken{{}}
	}
	for i := range n.Init.BootstrapTokens {
		t := &n.Init.BootstrapTokens[i]
		path := fmt.Sprintf("init.bootstrapTokens[%d].", i)
		if t.Token == "" {
			tok, err := NewToken(random)
			if err != nil {
				return err
			}
			t.Token = tok
			n.Sources[path+"token"] = "random"
		}
		if t.TTL == nil && t.Expires == nil {
			t.TTL = &metav1.Duration{Duration: defaultTokenTTL}
			n.Sources[path+"ttl"] = sourceDefault
		}
		if len(t.Usages) == 0 {
			t.Usages = []string{"signing", "authentication"}
			n.Sources[path+"usages"] = sourceDefault
		}
		if len(t.Groups) == 0 {
			t.Groups = []string{defaultTokenGroup}
			n.Sources[path+"groups"] = sourceDefault
		}
	}
	return nil
}

// NewToken makes a bootstrap token, "abcdef.0123456789abcdef", from random
// (nil: the system's).
func NewToken(random io.Reader) (Secret, error) {
	if random == nil {
		random = rand.Reader
	}
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	out := make([]byte, 0, 23)
	buf := make([]byte, 1)
	for len(out) < 23 {
		if len(out) == 6 {
			out = append(out, '.')
		}
		if _, err := io.ReadFull(random, buf); err != nil {
			return "", fmt.Errorf("cannot make a bootstrap token: %w", err)
		}
		// 252 is the largest multiple of 36 in a byte: no letter is likelier.
		if buf[0] < 252 {
			out = append(out, letters[buf[0]%36])
		}
	}
	return Secret(out), nil
}

// source is where the value at path, or what it is part of, came from.
func (n *Node) source(path string) string {
	for p := path; p != ""; {
		if s, ok := n.Sources[p]; ok {
			return s
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	// The lowest line below it, for a value that is a mapping.
	for _, p := range slices.Sorted(maps.Keys(n.Sources)) {
		if strings.HasPrefix(p, path+".") {
			return n.Sources[p]
		}
	}
	return ""
}
