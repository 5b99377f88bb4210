package node

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// NodeObject returns the Node object that this machine's kubelet registered, and
// asks to be called again until it is there.
func (m *Machine) NodeObject(ctx context.Context) (kubernetes.Interface, *corev1.Node, error) {
	c, _, err := m.AsNode()
	if err != nil {
		return nil, nil, err
	}
	name := m.Node.Init.NodeRegistration.Name
	n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, outcome.Retry{After: 200 * time.Millisecond, Why: fmt.Sprintf("the kubelet has not registered node %s yet", name)}
	} else if err != nil {
		return nil, nil, cluster.RetryIfTemporary(fmt.Errorf("cannot read node %s: %w", name, err))
	}
	if n.Labels[corev1.LabelHostname] == "" {
		return nil, nil, outcome.Retry{After: 200 * time.Millisecond, Why: fmt.Sprintf("the kubelet has not labelled node %s yet", name)}
	}
	return c, n, nil
}

// NodeIs says whether change would leave this machine's Node as it is.
func (m *Machine) NodeIs(ctx context.Context, change func(*corev1.Node)) (bool, error) {
	_, n, err := m.NodeObject(ctx)
	if err != nil {
		return false, err
	}
	after := n.DeepCopy()
	change(after)
	return equality.Semantic.DeepEqual(n, after), nil
}

// ChangeNode makes the change to this machine's Node.
func (m *Machine) ChangeNode(ctx context.Context, change func(*corev1.Node)) error {
	c, n, err := m.NodeObject(ctx)
	if err != nil {
		return err
	}
	if err := cluster.ChangeNode(ctx, c, n, change); err != nil {
		return cluster.RetryIfTemporary(fmt.Errorf("cannot change node %s: %w", n.Name, err))
	}
	return nil
}
