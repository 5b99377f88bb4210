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

// arguments are the flags of a component, sorted; extra ones take the place of
// defaults.
func arguments(defaults map[string]string, extra config.Args) []string {
	all := config.Args{}
	for name, value := range defaults {
		all.Set(name, value)
	}
	maps.Copy(all, extra)
	return all.Lines()
}

// proxies are the environment variables that name proxies: an
// environment has no order of its own, and a manifest that changes restarts
// its pod.
func (p PodParams) proxies() []corev1.EnvVar {
	var vars []corev1.EnvVar
	for _, e := range p.Env {
		name, value, _ := strings.Cut(e, "=")
		if value != "" && strings.HasSuffix(strings.ToLower(name), "_proxy") {
			vars = append(vars, corev1.EnvVar{Name: name, Value: value})
		}
	}
	slices.SortFunc(vars, func(a, b corev1.EnvVar) int { return cmp.Compare(a.Name, b.Name) })
	return vars
}

// component makes a static pod of one container.
func component(c corev1.Container, vols volumes, annotations map[string]string) *corev1.Pod {
	c.ImagePullPolicy = corev1.PullIfNotPresent
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: c.Name, Namespace: metav1.NamespaceSystem,
			Labels:      map[string]string{"component": c.Name, "tier": "control-plane"},
			Annotations: annotations,
		},
		Spec: corev1.PodSpec{PriorityClassName: "system-node-critical", HostNetwork: true},
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
var caCertDirs = [...]string{"/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/ca-certificates"}

// caCerts mounts the host's CA certificates.
func (p PodParams) caCerts(v volumes) {
	if p.Exists("/etc/ssl/certs") { // a read-only root has no place to make it
		v.dir("ca-certs", "/etc/ssl/certs", true)
	}
	for _, d := range caCertDirs {
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

// endpoint is what the kubelet probes.
type endpoint struct {
	host, path string
	port       int
	scheme     corev1.URIScheme
}

func (e endpoint) probe(delay, failures, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: e.host, Path: e.path, Port: intstr.FromInt32(int32(e.port)), Scheme: e.scheme,
		}},
		InitialDelaySeconds: delay, TimeoutSeconds: 15, FailureThreshold: failures, PeriodSeconds: period,
	}
}

func (e endpoint) liveness() *corev1.Probe  { return e.probe(10, 8, 10) }
func (e endpoint) readiness() *corev1.Probe { return e.probe(0, 3, 1) }

// startup allows as much time as the user allows the control plane, or as p
// says.
func (e endpoint) startup(p PodParams) *corev1.Probe {
	limit, _ := p.Node.ControlPlaneTimeout()
	if p.Startup > 0 {
		limit = p.Startup
	}
	return e.probe(10, int32(math.Ceil(limit.Seconds()/10)), 10)
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
