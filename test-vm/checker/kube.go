package main

import (
	"context"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	adminConf   = "/etc/kubernetes/admin.conf"
	kubeletConf = "/etc/kubernetes/kubelet.conf"
)

// kube is the cluster as seen from this node: by its administrator, or on a
// worker, which has no administrator's kubeconfig, by its kubelet.
type kube struct {
	core  *corev1.CoreV1Client
	apps  *appsv1.AppsV1Client
	node  string
	admin bool
}

func connect() (*kube, error) {
	k, err := connectAs(adminConf)
	if os.IsNotExist(err) {
		return connectAs(kubeletConf)
	}
	return k, err
}

func connectAs(file string) (*kube, error) {
	c, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, err
	}
	c.Timeout = 10 * time.Second
	c.QPS = -1
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, err
	}
	core, err := corev1.NewForConfigAndClient(c, client)
	if err != nil {
		return nil, err
	}
	apps, err := appsv1.NewForConfigAndClient(c, client)
	if err != nil {
		return nil, err
	}
	// kubeadm and kbuild name a node after its host unless told otherwise; a
	// cluster with one node has it anyway.
	name, err := os.Hostname()
	return &kube{core, apps, name, file == adminConf}, err
}

func (k *kube) healthy(ctx context.Context) error {
	return k.core.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// thisNode returns the name of this machine's node: that of its host, or the
// only one there is.
func (k *kube) thisNode(ctx context.Context) (string, error) {
	if !k.admin {
		return k.node, nil
	}
	l, err := k.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(l.Items) == 1 {
		return l.Items[0].Name, nil
	}
	return k.node, nil
}
