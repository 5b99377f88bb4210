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
	Force        bool // harm the cluster, lose pods, or do without the machine
	KeepNode     bool // leave the Node object
	DrainTimeout time.Duration
	NodeTimeout  time.Duration
}

// silence is how long the API server does not answer when its cluster has ended
// with its last control plane.
const silence = time.Minute

// CheckReset says why a node may not be reset without force.
func CheckReset(c Cluster, name string) error {
	n, ok := c.node(name)
	if !ok {
		return fmt.Errorf("cannot reset node %s: the cluster has none of that name, only %s", name, names(c.Nodes))
	}
	if harm := c.harm(name); harm != "" {
		return fmt.Errorf("cannot reset node %s: %s. If that is what you want, use --force", name, harm)
	}
	if !n.Ready {
		return fmt.Errorf("cannot reset node %s: it is not Ready, so nothing can be done on its machine; --force takes it out of the cluster and leaves the machine as it is", name)
	}
	return nil
}

// Reset makes a node's machine a new one: it is drained, leaves the cluster,
// wipes its state and boots again. Stopped before the machine has begun, it
// takes pods again; from then on it goes on by itself.
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
		f.bury(ctx, c, n)
		return f.forget(ctx, n, o)
	}
	if err := f.empty(ctx, n, o); err != nil {
		return err
	}
	last := len(c.controlPlanes()) == 1 && n.ControlPlane
	if err := f.leave(ctx, n, o, last); err != nil {
		return err
	}
	if last {
		f.report(name, Done, "its cluster has ended with it")
		return nil
	}
	f.unguard(ctx, name)
	return f.forget(ctx, n, o)
}

// empty cordons and drains a node that is to be reset.
func (f *Fleet) empty(ctx context.Context, n Node, o ResetOptions) error {
	f.report(n.Name, Cordon, "no new pods come")
	err := f.guard(ctx, n, o.DrainTimeout, o.NodeTimeout)
	if err == nil {
		err = f.cordon(ctx, n.Name)
	}
	if err == nil {
		f.report(n.Name, Drain, "its pods leave")
		err = f.drain(ctx, n.Name, o.DrainTimeout, o.Force)
	}
	if err != nil && o.Force && ctx.Err() == nil {
		f.report(n.Name, Drain, "it is forced: "+err.Error())
		return nil
	}
	if err != nil {
		f.takeBack(ctx, n.Name)
	}
	return err
}

// takeBack lets pods come to a node again whose machine does not go down after
// all.
func (f *Fleet) takeBack(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := f.uncordon(ctx, name); err != nil {
		f.report(name, Failed, fmt.Sprintf("cannot let pods come to it again: %v; `kubectl uncordon %s` does, and so does the node itself, later", err, name))
		return
	}
	f.unguard(ctx, name)
	f.report(name, Cordon, "pods may come again")
}

// leave has the machine reset itself, and waits until its node has left. The
// cluster ends with its last control plane, and then nobody answers.
func (f *Fleet) leave(ctx context.Context, n Node, o ResetOptions, last bool) error {
	f.report(n.Name, Reset, "its machine leaves the cluster, wipes its state and boots")
	args := []string{"reset", "--yes"}
	if o.Force {
		args = append(args, "--force")
	}
	job, err := f.begin(ctx, n, order{name: "reset", what: "reset itself", args: args, last: true})
	if job == nil {
		f.takeBack(ctx, n.Name)
		return err
	}
	defer func() {
		if !last {
			f.end(ctx, job)
		}
	}()
	if err != nil {
		f.recall(ctx, n, job)
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
			f.recall(ctx, n, job)
			return context.Cause(ctx)
		case err != nil:
			return err
		case s.phase == corev1.PodFailed && s.code < 128:
			f.takeBack(ctx, n.Name)
			return fmt.Errorf("node %s cannot reset itself: %s", n.Name, s.said)
		case s.phase == corev1.PodPending && time.Since(begun) > startPatience:
			f.end(ctx, job)
			f.takeBack(ctx, n.Name)
			return fmt.Errorf("cannot tell node %s to reset itself: its Pod does not start: %s", n.Name, s.said)
		case time.Since(begun) > o.NodeTimeout:
			return fmt.Errorf("node %s has not left within %v: look at its console; it goes on by itself", n.Name, o.NodeTimeout)
		}
		f.sleep(ctx)
	}
}

// recall takes the order back, where nobody on the machine has heard of it yet.
func (f *Fleet) recall(ctx context.Context, n Node, job *batchv1.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if s, err := f.look(ctx, job); err == nil && s.phase == corev1.PodPending {
		f.end(ctx, job)
		f.takeBack(ctx, n.Name)
		return
	}
	f.report(n.Name, Wait, "its machine has begun, and goes on by itself")
}

// bury has another control plane take out of etcd what a control plane has left
// whose machine does not answer any more. One that kubeadm made cannot.
func (f *Fleet) bury(ctx context.Context, c Cluster, n Node) {
	f.report(n.Name, Reset, "it is not Ready: its machine stays as it is")
	if !n.ControlPlane {
		return
	}
	err := errors.New("no other control plane is Ready")
	for _, o := range c.controlPlanes() {
		if o.Name == n.Name || !o.Ready {
			continue
		}
		f.report(n.Name, Reset, "node "+o.Name+" takes its member out of etcd")
		if _, err = f.do(ctx, o, order{name: "forget", what: "take node " + n.Name + " out of etcd", args: []string{"forget", n.Name}}); err == nil {
			return
		}
	}
	f.report(n.Name, Reset, fmt.Sprintf("its member of etcd stays: %v; `kbuild-firstboot forget %s` on a control plane takes it out, and so does the next one that joins", err, n.Name))
}

// forget deletes the Node of a machine that has left. One that is not there, or
// of a machine that has joined since under the same name, is left alone: a worker
// joins with the Node that it had.
func (f *Fleet) forget(ctx context.Context, n Node, o ResetOptions) error {
	if o.KeepNode {
		f.report(n.Name, Done, "its Node stays")
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
		return fmt.Errorf("cannot delete Node %s: %w; `kubectl delete node %[1]s` does", n.Name, err)
	}
	if joined {
		f.report(n.Name, Done, "its machine has joined again already")
		return nil
	}
	f.report(n.Name, Done, "it is no node of this cluster any more")
	return nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
