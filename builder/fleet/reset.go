package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// ResetOptions are what an operator decides about a node's reset.
type ResetOptions struct {
	Force        bool // even if the cluster is harmed, pods are lost or the machine cannot be reached
	KeepNode     bool // keep the Node object
	DrainTimeout time.Duration
	NodeTimeout  time.Duration
}

// silence is how long the API server has not answered when the last control plane
// counts as gone.
const silence = time.Minute

// CheckReset returns why a node may not be reset without force.
func CheckReset(c Cluster, name string) error {
	n, ok := c.node(name)
	if !ok {
		return fmt.Errorf("cannot reset node %s: the cluster has no such node, only %s", name, names(c.Nodes))
	}
	if harm := c.harm(name); harm != "" {
		return fmt.Errorf("cannot reset node %s: %s. If that is what you want, use --force", name, harm)
	}
	if !n.Ready {
		return fmt.Errorf("cannot reset node %s: it is not Ready, so its machine cannot be wiped; --force removes it from the cluster and does not touch the machine", name)
	}
	return nil
}

// Reset removes a node: it is drained, leaves the cluster, wipes its state and
// reboots. If it is stopped before the machine has begun, the node is uncordoned;
// after that the machine continues by itself.
func (f *Fleet) Reset(ctx context.Context, name string, o ResetOptions) error {
	return f.locked(ctx, func(ctx context.Context) error { return f.reset(ctx, name, o) })
}

func (f *Fleet) reset(ctx context.Context, name string, o ResetOptions) error {
	c, err := f.Observe(ctx)
	if err != nil {
		return err
	}
	n, ok := c.node(name)
	if err := CheckReset(c, name); err != nil && (!o.Force || !ok) {
		return err
	}
	if !n.Ready {
		f.removeDeadMember(ctx, c, n)
		return f.deleteNode(ctx, n, o)
	}
	if err := f.drainForReset(ctx, n, o); err != nil {
		return err
	}
	last := len(c.controlPlanes()) == 1 && n.ControlPlane
	if err := f.resetMachine(ctx, n, o, last); err != nil {
		return err
	}
	if last {
		f.report(name, Done, "it was the last control plane: the cluster is gone")
		return nil
	}
	f.unguard(ctx, name)
	return f.deleteNode(ctx, n, o)
}

// drainForReset cordons and drains a node that is to be reset.
func (f *Fleet) drainForReset(ctx context.Context, n Node, o ResetOptions) error {
	f.report(n.Name, Cordon, "no new pods are scheduled")
	err := f.guard(ctx, n, o.DrainTimeout, o.NodeTimeout)
	if err == nil {
		err = f.cordon(ctx, n.Name)
	}
	if err == nil {
		f.report(n.Name, Drain, "its pods are evicted")
		err = f.drain(ctx, n.Name, o.DrainTimeout, o.Force)
	}
	if err != nil && o.Force && ctx.Err() == nil {
		f.report(n.Name, Drain, "continuing, because of --force: "+err.Error())
		return nil
	}
	if err != nil {
		f.undoCordon(ctx, n.Name)
	}
	return err
}

// undoCordon uncordons a node whose machine does not go down after all.
func (f *Fleet) undoCordon(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := f.uncordon(ctx, name); err != nil {
		f.report(name, Failed, fmt.Sprintf("cannot uncordon it: %v; run `kubectl uncordon %s`, or wait: the node uncordons itself later", err, name))
		return
	}
	f.unguard(ctx, name)
	f.report(name, Cordon, "it is uncordoned")
}

// resetMachine has the machine reset itself, and waits until its node has left. When
// the last control plane is reset, the API does not answer any more.
func (f *Fleet) resetMachine(ctx context.Context, n Node, o ResetOptions, last bool) error {
	f.report(n.Name, Reset, "its machine leaves the cluster, wipes its state and reboots")
	args := []string{"reset", "--yes"}
	if o.Force {
		args = append(args, "--force")
	}
	job, err := f.begin(ctx, n, nodeTask{name: "reset", what: "reset itself", args: args, last: true})
	if job == nil {
		f.undoCordon(ctx, n.Name)
		return err
	}
	defer func() {
		if !last {
			f.end(ctx, job)
		}
	}()
	if err != nil {
		f.cancelReset(ctx, n, job)
		return err
	}
	begun, answered := time.Now(), time.Now()
	for {
		now, err := f.observeNode(ctx, n.Name)
		switch {
		case apierrors.IsNotFound(err), err == nil && now.UID != n.UID, err == nil && now.Left != n.Left:
			return nil
		case err == nil:
			answered = time.Now()
		case ctx.Err() == nil && !cluster.Temporary(err):
			return err
		case last && time.Since(answered) > silence:
			return nil
		}
		s, err := f.look(ctx, job)
		switch {
		case ctx.Err() != nil:
			f.cancelReset(ctx, n, job)
			return context.Cause(ctx)
		case err != nil:
			return err
		case s.phase == corev1.PodFailed && s.code < 128:
			f.undoCordon(ctx, n.Name)
			return fmt.Errorf("node %s cannot reset itself: %s", n.Name, s.said)
		case s.phase == corev1.PodPending && time.Since(begun) > startPatience:
			f.end(ctx, job)
			f.undoCordon(ctx, n.Name)
			return fmt.Errorf("cannot have node %s reset itself: the Pod does not start: %s", n.Name, s.said)
		case time.Since(begun) > o.NodeTimeout:
			return fmt.Errorf("node %s has not left within %v: check its console; it continues by itself", n.Name, o.NodeTimeout)
		}
		f.sleep(ctx)
	}
}

// cancelReset deletes the Job if it has not started on the machine yet.
func (f *Fleet) cancelReset(ctx context.Context, n Node, job *batchv1.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if s, err := f.look(ctx, job); err == nil && s.phase == corev1.PodPending {
		f.end(ctx, job)
		f.undoCordon(ctx, n.Name)
		return
	}
	f.report(n.Name, Wait, "its machine has begun, and continues by itself")
}

// removeDeadMember has another control plane remove the etcd member of one whose
// machine does not answer any more. A control plane that kubeadm made cannot do that.
func (f *Fleet) removeDeadMember(ctx context.Context, c Cluster, n Node) {
	f.report(n.Name, Reset, "it is not Ready: its machine is not touched")
	if !n.ControlPlane {
		return
	}
	err := errors.New("no other control plane is Ready")
	for _, o := range c.controlPlanes() {
		if o.Name == n.Name || !o.Ready {
			continue
		}
		f.report(n.Name, Reset, "node "+o.Name+" removes its etcd member")
		if _, err = f.do(ctx, o, nodeTask{name: "forget", what: "remove the etcd member of node " + n.Name, args: []string{"forget", n.Name}}); err == nil {
			return
		}
	}
	f.report(n.Name, Reset, fmt.Sprintf("its etcd member stays: %v; remove it with `kbuild-firstboot forget %s` on a control plane, or let the next control plane that joins do it", err, n.Name))
}

// deleteNode deletes the Node of a machine that has left. If it is gone, or its
// machine has joined again under the same name, it is left alone: a worker joins
// with the Node that it had.
func (f *Fleet) deleteNode(ctx context.Context, n Node, o ResetOptions) error {
	if o.KeepNode {
		f.report(n.Name, Done, "its Node is kept")
		return nil
	}
	joined := false
	err := f.steady(ctx, func() error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			now, err := f.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			if joined = err == nil && (string(now.UID) != n.UID || now.Status.NodeInfo.BootID != n.BootID); err != nil || joined {
				return ignoreNotFound(err)
			}
			err = f.Client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion}})
			return ignoreNotFound(err)
		})
	})
	if err != nil {
		return fmt.Errorf("cannot delete Node %s: %w; run `kubectl delete node %[1]s`", n.Name, err)
	}
	if joined {
		f.report(n.Name, Done, "its machine has already joined again")
		return nil
	}
	f.report(n.Name, Done, "it is no longer a node of this cluster")
	return nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
