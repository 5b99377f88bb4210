package templates

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// PodParams is what the static pods of a control plane depend on.
type PodParams struct {
	Node    *config.Node
	Release images.Release
	// Exists says whether a path is there on the node: directories of CA
	// certificates are mounted only where they are.
	Exists func(name string) bool
	// Env is the environment that kubeadm would have, "NAME=VALUE": what it
	// says of proxies is handed on.
	Env []string
	// ExternalCA: the cluster's authority has no key on the node.
	ExternalCA bool
	// Startup is how long API server and etcd may take to start before the
	// kubelet ends them and begins again, where that is not what Node says
	// (kubeadm's timeoutForControlPlane); zero is what Node says.
	Startup time.Duration
	// EtcdMembers are the members of the local etcd that this node's joins,
	// itself included; none means that it is the first one.
	EtcdMembers []EtcdMember
}

// Names of the static pods, which are also the names of their manifests.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// ControlPlanePods are the pods of the control plane but etcd, in the order in
// which they are written.
func ControlPlanePods(p PodParams) []*corev1.Pod {
	return []*corev1.Pod{p.apiServer(), p.controllerManager(), p.scheduler()}
}

func (p PodParams) pki(name string) string {
	return path.Join(p.Node.Cluster.CertificatesDir, name)
}

// localhost is the loopback address of the family that the node advertises.
func (p PodParams) localhost() string {
	if ip := net.ParseIP(p.Node.Init.LocalAPIEndpoint.AdvertiseAddress); ip != nil && ip.To4() == nil {
		return "::1"
	}
	return "127.0.0.1"
}

// arguments are the flags of a component; the user's take the place of ours,
// also where one is given several times.
func (p PodParams) arguments(ours map[string]string, user config.Args) []string {
	args := config.Args{}
	for name, value := range ours {
		if _, replaced := user[name]; !replaced {
			args.Set(name, value)
		}
	}
	if p.Release.Has(images.FactArgsAppended) {
		return append(args.Lines(), user.Lines()...)
	}
	for name, values := range user {
		args[name] = slices.Sorted(slices.Values(values))
	}
	return args.Lines()
}

// proxies are the environment variables that name proxies.
func (p PodParams) proxies() []corev1.EnvVar {
	var vars []corev1.EnvVar
	for _, e := range p.Env {
		name, value, _ := strings.Cut(e, "=")
		if value != "" && strings.HasSuffix(strings.ToLower(name), "_proxy") {
			vars = append(vars, corev1.EnvVar{Name: name, Value: value})
		}
	}
	return vars
}

// environment lays lists of variables together; of several with one name the
// last counts. It is sorted: an environment has no order of its own, and a
// manifest that changes restarts its pod.
func environment(lists ...[]corev1.EnvVar) []corev1.EnvVar {
	byName := map[string]corev1.EnvVar{}
	for _, v := range slices.Concat(lists...) {
		byName[v.Name] = v
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b corev1.EnvVar) int { return cmp.Compare(a.Name, b.Name) })
}

// criticalPriority is the number of the priority class system-node-critical
// (k8s.io/kubernetes/pkg/apis/scheduling).
const criticalPriority int32 = 2000001000

// component makes a static pod of one container, which is probed as h says.
func (p PodParams) component(c corev1.Container, h health, vols volumes, annotations map[string]string) *corev1.Pod {
	c.ImagePullPolicy = corev1.PullIfNotPresent
	p.probe(&c, h)
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: c.Name, Namespace: metav1.NamespaceSystem,
			Labels:      map[string]string{"component": c.Name, "tier": "control-plane"},
			Annotations: annotations,
		},
		Spec: corev1.PodSpec{PriorityClassName: "system-node-critical", HostNetwork: true},
	}
	if p.Release.Has(images.FactPodPriority) {
		pod.Spec.Priority = new(criticalPriority)
	}
	if p.Release.Has(images.FactSeccomp) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	for _, v := range vols.sorted() {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.name, MountPath: v.mount, ReadOnly: v.readOnly})
		kind := v.kind
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: v.name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: v.host, Type: &kind},
		}})
	}
	pod.Spec.Containers = []corev1.Container{c}
	return pod
}

func requests(cpu string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}
}

// volume is a path of the host in the pod.
type volume struct {
	name, host, mount string
	readOnly          bool
	kind              corev1.HostPathType
}

// volumes are by name; a user's extra volume takes the place of ours.
type volumes map[string]volume

func (v volumes) dir(name, path string, readOnly bool) {
	v[name] = volume{name, path, path, readOnly, corev1.HostPathDirectoryOrCreate}
}

func (v volumes) file(name, path string) {
	v[name] = volume{name, path, path, true, corev1.HostPathFileOrCreate}
}

func (v volumes) extra(ms []config.HostPathMount) {
	for _, m := range ms {
		v[m.Name] = volume{m.Name, m.HostPath, m.MountPath, m.ReadOnly, m.PathType}
	}
}

func (v volumes) sorted() []volume {
	return slices.SortedFunc(maps.Values(v), func(a, b volume) int { return cmp.Compare(a.name, b.name) })
}

// caCertDirs are where distributions keep what the links in /etc/ssl/certs
// lead to.
func (p PodParams) caCertDirs() []string {
	dirs := []string{"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ca-certificates"}
	if p.Release.Has(images.FactCATrust) {
		return append(dirs, "/etc/pki/ca-trust", "/etc/pki/tls/certs")
	}
	return append(dirs, "/etc/pki")
}

// caCerts mounts the host's CA certificates.
func (p PodParams) caCerts(v volumes) {
	if p.Exists("/etc/ssl/certs") { // a read-only root has no place to make it
		v.dir("ca-certs", "/etc/ssl/certs", true)
	}
	for _, d := range p.caCertDirs() {
		if p.Exists(d) {
			v.dir(strings.ReplaceAll(strings.TrimPrefix(d, "/"), "/", "-"), d, true)
		}
	}
}

// probeAddress is an address that can be probed: none for the unspecified
// ones, which stands for the pod's own.
func probeAddress(bind string) string {
	if bind == "0.0.0.0" || bind == "::" {
		return ""
	}
	return bind
}

// health is where a component tells the kubelet how it is: whether it is alive,
// ready, and has started. An empty path is not asked; a path may have a query.
type health struct {
	host                  string
	port                  int
	scheme                corev1.URIScheme
	alive, ready, started string
}

// probePort is the name of the port that is probed, where it has one.
const probePort = "probe-port"

// probe gives a container the probes of h.
func (p PodParams) probe(c *corev1.Container, h health) {
	port := intstr.FromInt32(int32(h.port))
	if p.Release.Has(images.FactProbePort) {
		port = intstr.FromString(probePort)
		c.Ports = []corev1.ContainerPort{{Name: probePort, ContainerPort: int32(h.port), Protocol: corev1.ProtocolTCP}}
	}
	get := func(path string, delay, failures, period int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:        corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: h.host, Path: path, Port: port, Scheme: h.scheme}},
			InitialDelaySeconds: delay, TimeoutSeconds: 15, FailureThreshold: failures, PeriodSeconds: period,
		}
	}
	c.LivenessProbe = get(h.alive, 10, 8, 10)
	if h.ready != "" {
		c.ReadinessProbe = get(h.ready, 0, 3, 1)
	}
	c.StartupProbe = get(h.started, 10, int32(math.Ceil(p.startupLimit().Seconds()/10)), 10)
}

// startupLimit is as much time as the user allows the control plane, or as p
// says.
func (p PodParams) startupLimit() time.Duration {
	if p.Startup > 0 {
		return p.Startup
	}
	limit, _ := p.Node.ControlPlaneTimeout()
	return limit
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
