package fleet

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// endpointAnnotation is kubeadm's annotation on an API server's pod with its
// address.
const endpointAnnotation = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"

// running is the configuration that a cluster stores, and what one of its control
// planes shows of its machine.
type running struct {
	kubeadm, kubelet, proxy string // documents
	node                    string
	pods                    map[string]*corev1.Pod // by component
}

// configured is the control plane as a node of the release.
func (r running) configured(rel images.Release) (*config.Node, error) {
	moved, err := config.MoveCluster([]byte(r.kubeadm), rel)
	if err != nil {
		return nil, err
	}
	// As the first control plane, which needs no settings for joining.
	n := &config.Node{Role: config.RoleInit, Sources: map[string]string{}}
	n.Init.NodeRegistration.Name, n.Init.NodeRegistration.CRISocket = r.node, config.CRISocket
	if p := r.pods[templates.APIServer]; p != nil {
		host, port, err := net.SplitHostPort(p.Annotations[endpointAnnotation])
		number, err2 := strconv.Atoi(port)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("pod %s does not say where it listens (annotation %s)", p.Name, endpointAnnotation)
		}
		n.Init.LocalAPIEndpoint = config.APIEndpoint{AdvertiseAddress: host, BindPort: int32(number)}
	}
	c, _, err := config.ReadCluster(n, images.Baked{Release: rel, CNI: "none"}, config.Machine{},
		config.Document{Source: "ConfigMap kubeadm-config", Data: moved},
		config.Document{Source: "ConfigMap of the kubelets", Data: []byte(r.kubelet)},
		config.Document{Source: "ConfigMap kube-proxy", Data: []byte(r.proxy)})
	if err != nil {
		return nil, fmt.Errorf("cannot read the cluster's configuration as %s does: %w", rel.Version, err)
	}
	return n.In(c), nil
}

// staticPods are the pods that the control plane has in the release.
func (r running) staticPods(n *config.Node, rel images.Release) []*corev1.Pod {
	paths, params := map[string]bool{}, templates.PodParams{Node: n, Release: rel}
	for _, p := range r.pods {
		for _, v := range p.Spec.Volumes {
			if v.HostPath != nil {
				paths[v.HostPath.Path] = true
			}
		}
	}
	if p := r.pods[templates.APIServer]; p != nil { // all have the same proxies
		if probe := p.Spec.Containers[0].StartupProbe; probe != nil { // an emulated machine has more time
			params.Startup = time.Duration(probe.FailureThreshold*probe.PeriodSeconds) * time.Second
		}
		for _, e := range p.Spec.Containers[0].Env {
			params.Env = append(params.Env, e.Name+"="+e.Value)
		}
	}
	params.Exists = func(name string) bool { return paths[name] }
	if key, set := argument(r.pods[templates.ControllerManager], "cluster-signing-key-file"); set && key == "" {
		params.ExternalCA = true
	}
	pods := templates.ControlPlanePods(params)
	if n.Cluster.Etcd.Local != nil {
		if state, _ := argument(r.pods[templates.Etcd], "initial-cluster-state"); state == "existing" {
			list, _ := argument(r.pods[templates.Etcd], "initial-cluster")
			for m := range strings.SplitSeq(list, ",") {
				name, url, _ := strings.Cut(m, "=")
				params.EtcdMembers = append(params.EtcdMembers, templates.EtcdMember{Name: name, PeerURL: url})
			}
		}
		pods = append([]*corev1.Pod{templates.EtcdPod(params)}, pods...)
	}
	return pods
}

// argument is a flag's value on the command line of a static pod.
func argument(p *corev1.Pod, flag string) (string, bool) {
	if p == nil {
		return "", false
	}
	for _, a := range p.Spec.Containers[0].Command {
		if v, ok := strings.CutPrefix(a, "--"+flag+"="); ok {
			return v, true
		}
	}
	return "", false
}

// addons are the objects of kubeadm's add-ons that the cluster's configuration
// asks for.
func addons(n *config.Node, rel images.Release) ([]runtime.Object, error) {
	p, err := templates.NewAddonParams(n, rel, pki.Endpoint(n))
	if err != nil {
		return nil, err
	}
	var all []runtime.Object
	for _, a := range []templates.Addon{templates.KubeProxy, templates.CoreDNS} {
		if a.DisabledIn(n.Cluster) {
			continue
		}
		text, err := a.Render(p)
		if err != nil {
			return nil, err
		}
		objs, err := cluster.Typed(string(a)+".yaml", text)
		if err != nil {
			return nil, err
		}
		all = append(all, objs...)
	}
	return all, nil
}

// kubeletConfig is the ConfigMap from which kubelets of the release start.
func kubeletConfig(n *config.Node, rel images.Release) (*corev1.ConfigMap, error) {
	conf, err := config.MarshalKubelet(n, rel)
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: rel.KubeletConfigMap, Namespace: metav1.NamespaceSystem},
		Data:       map[string]string{"kubelet": string(conf)},
	}, nil
}
