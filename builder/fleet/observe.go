package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// Cluster is what the API shows of a cluster.
type Cluster struct {
	Version      string // in kubeadm-config
	ExternalEtcd bool
	EtcdTag      string // of etcd, in the configuration; empty: the version's own
	Nodes        []Node // by name
	// Deprecated are the deprecated APIs in use, and DeprecatedUnknown why they
	// are not known: see ObserveAPIs.
	Deprecated        []DeprecatedAPI
	DeprecatedUnknown string
}

// Node is what the API shows of a node.
type Node struct {
	Name          string
	UID           string
	Version       string // of its kubelet
	ControlPlane  bool
	Ready         bool
	BootID        string
	Unschedulable bool
	Cordoned      string // the boot in which kbuild cordoned it; empty: not cordoned by kbuild
	Left          string // when the reset began that removed it
	OS            string
	// Pods are its static pods of the control plane, and whether each is Ready.
	Pods map[string]bool
	// Images are names of images that it holds, those of running pods first.
	Images []string
}

// Observe reads the cluster.
func (f *Fleet) Observe(ctx context.Context) (Cluster, error) {
	c, err := f.clusterConfig(ctx)
	if err != nil {
		return c, err
	}
	nodes, err := f.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return c, fmt.Errorf("cannot list the nodes: %w", err)
	}
	pods, err := f.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	if err != nil {
		return c, fmt.Errorf("cannot list the pods of kube-system: %w", err)
	}
	for _, n := range nodes.Items {
		c.Nodes = append(c.Nodes, nodeOf(&n, pods.Items))
	}
	slices.SortFunc(c.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

// observeNode reads one node.
func (f *Fleet) observeNode(ctx context.Context, name string) (Node, error) {
	n, err := f.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Node{}, fmt.Errorf("cannot read node %s: %w", name, err)
	}
	pods, err := f.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return Node{}, fmt.Errorf("cannot list the pods of node %s: %w", name, err)
	}
	return nodeOf(n, pods.Items), nil
}

// clusterConfig reads ConfigMap kubeadm-config.
func (f *Fleet) clusterConfig(ctx context.Context) (Cluster, error) {
	cm, err := f.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "kubeadm-config", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Cluster{}, fmt.Errorf("cannot read ConfigMap kube-system/kubeadm-config: it does not exist, so this cluster was not made by kbuild or kubeadm; use another one with --kubeconfig")
	} else if err != nil {
		return Cluster{}, fmt.Errorf("cannot read ConfigMap kube-system/kubeadm-config: %w", err)
	}
	// All versions of kubeadm's API have these fields.
	var conf struct {
		KubernetesVersion string `json:"kubernetesVersion"`
		Etcd              struct {
			External map[string]any `json:"external"`
			Local    struct {
				ImageTag string `json:"imageTag"`
			} `json:"local"`
		} `json:"etcd"`
	}
	if err := yaml.Unmarshal([]byte(cm.Data["ClusterConfiguration"]), &conf); err != nil {
		return Cluster{}, fmt.Errorf("cannot read ConfigMap kube-system/kubeadm-config: %w", err)
	}
	if conf.KubernetesVersion == "" {
		return Cluster{}, fmt.Errorf("cannot read ConfigMap kube-system/kubeadm-config: its ClusterConfiguration has no kubernetesVersion")
	}
	return Cluster{Version: conf.KubernetesVersion, ExternalEtcd: conf.Etcd.External != nil, EtcdTag: conf.Etcd.Local.ImageTag}, nil
}

// nodeOf is a Node, with those of the pods that it runs.
func nodeOf(n *corev1.Node, pods []corev1.Pod) Node {
	o := Node{
		Name: n.Name, UID: string(n.UID), Version: n.Status.NodeInfo.KubeletVersion, BootID: n.Status.NodeInfo.BootID, OS: n.Status.NodeInfo.OSImage,
		Unschedulable: n.Spec.Unschedulable, Cordoned: n.Annotations[cluster.CordonedAnnotation], Left: n.Annotations[cluster.LeftAnnotation],
		Pods: map[string]bool{},
	}
	for _, c := range n.Status.Conditions {
		o.Ready = o.Ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	static := []string{templates.Etcd, templates.APIServer, templates.ControllerManager, templates.Scheduler}
	for _, p := range pods {
		if p.Spec.NodeName != n.Name {
			continue
		}
		if name := p.Labels["component"]; p.Labels["tier"] == "control-plane" && slices.Contains(static, name) {
			o.Pods[name] = podReady(&p)
		}
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			for _, c := range p.Spec.Containers {
				o.Images = append(o.Images, c.Image)
			}
		}
	}
	for _, i := range n.Status.Images {
		for _, name := range i.Names {
			if !strings.Contains(name, "@") {
				o.Images = append(o.Images, name)
			}
		}
	}
	_, serves := o.Pods[templates.APIServer]
	o.ControlPlane = serves || hasRole(n)
	return o
}

// hasRole says whether a Node has a label by which its version marks a control
// plane.
func hasRole(n *corev1.Node) bool {
	r, err := images.Assume(n.Status.NodeInfo.KubeletVersion)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(r.Labels, func(l string) bool {
		_, has := n.Labels[l]
		return has && strings.HasPrefix(l, "node-role.kubernetes.io/")
	})
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// Role is "control-plane" or "worker".
func (n Node) Role() string {
	if n.ControlPlane {
		return "control-plane"
	}
	return "worker"
}

// node is the node of that name.
func (c Cluster) node(name string) (Node, bool) {
	i := slices.IndexFunc(c.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return c.Nodes[i], true
}

// controlPlanes are the nodes that are one.
func (c Cluster) controlPlanes() []Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n Node) bool { return !n.ControlPlane })
}
