package firstboot

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// say is the kubelet telling the cluster how its node is.
func say(t *testing.T, c kubernetes.Interface, ready corev1.ConditionStatus, message string) {
	t.Helper()
	nodes := c.CoreV1().Nodes()
	n, err := nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.NodeInfo.KubeletVersion = "v1.19.12"
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Message: message}}
	if _, err := nodes.Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A kubelet of v1.19 that is Ready, and would only say so seconds later, is
// started again: once.
func TestNodeReady(t *testing.T) {
	s := apitest.Memory(t)
	m := clusterRun(t, s, testUserdata)
	c := s.Client(t)
	registerNode(t, c)
	restarts := 0
	m.Host.Systemd.Restart = func(_ context.Context, unit string) error {
		if restarts++; unit != kubelet.Unit {
			t.Errorf("restarted %s", unit)
		}
		say(t, c, corev1.ConditionTrue, "kubelet is posting ready status")
		return nil
	}
	waits := func(why string) outcome.Retry {
		t.Helper()
		_, err := stepNodeReady().Done(t.Context(), m)
		wait, ok := errors.AsType[outcome.Retry](err)
		if !ok {
			t.Fatalf("%s: Done says %v, want a Retry", why, err)
		}
		return wait
	}

	say(t, c, corev1.ConditionFalse, "runtime network not ready")
	waits("without a network")
	say(t, c, corev1.ConditionFalse, "CSINode is not yet initialized")
	if w := waits("before its CSINode is made"); w.After > time.Second {
		t.Errorf("looks again after %s, and the node does not change meanwhile", w.After)
	}
	if _, err := c.StorageV1().CSINodes().Create(t.Context(), &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := runSteps(t.Context(), m, stepNodeReady()); err != nil || restarts != 1 {
		t.Fatalf("%v after %d restarts, want Ready after one", err, restarts)
	}
	if err := runSteps(t.Context(), m, stepNodeReady()); err != nil || restarts != 1 {
		t.Errorf("a second run: %v, %d restarts", err, restarts)
	}
	say(t, c, corev1.ConditionFalse, "CSINode is not yet initialized")
	waits("after the restart")
	if restarts != 1 {
		t.Errorf("%d restarts", restarts)
	}
}
