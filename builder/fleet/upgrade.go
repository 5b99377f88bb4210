package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// UpgradeOptions are what an operator decides about an upgrade.
type UpgradeOptions struct {
	To             string        // version
	Source         string        // URL of the new image's directory
	MaxUnavailable int           // workers that may be unavailable at the same time
	DrainTimeout   time.Duration // for each node; 0 is no limit
	NodeTimeout    time.Duration // for staging, and for each reboot
}

// Upgrade upgrades all nodes: the control planes one at a time, and only while all
// others are healthy, then the workers. Nodes that already run the version are left
// alone. The first failure stops the upgrade: a node that has not rebooted yet is
// uncordoned; one that has continues by itself.
func (f *Fleet) Upgrade(ctx context.Context, o UpgradeOptions) error {
	return f.locked(ctx, func(ctx context.Context) error { return f.upgrade(ctx, o) })
}

func (f *Fleet) upgrade(ctx context.Context, o UpgradeOptions) error {
	c, err := f.Observe(ctx)
	if err != nil {
		return err
	}
	p, err := MakePlan(c, o.To)
	if err != nil {
		return fmt.Errorf("cannot upgrade to %s: %w", o.To, err)
	}
	if len(p.Blocked) > 0 {
		return fmt.Errorf("cannot upgrade to %s: %s", o.To, strings.Join(p.Blocked, "; "))
	}
	u := &upgrade{Fleet: f, UpgradeOptions: o}
	for _, n := range c.upgradeOrder(o.To) {
		if n.ControlPlane {
			if err := u.node(ctx, n); err != nil {
				return err
			}
		}
	}
	return u.workers(ctx)
}

// upgrade is one run.
type upgrade struct {
	*Fleet
	UpgradeOptions
}

// workers upgrades the workers, as many at the same time as may be unavailable.
func (u *upgrade) workers(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	busy, done := map[string]bool{}, map[string]bool{}
	type result struct {
		name string
		err  error
	}
	results := make(chan result)
	finish := func(l result) error {
		delete(busy, l.name)
		done[l.name] = l.err == nil
		if l.err != nil {
			stop(fmt.Errorf("the upgrade was stopped, because of node %s", l.name))
		}
		return l.err
	}
	var failed error
	idle := time.Now()
	for {
		c, err := u.Observe(ctx)
		if err != nil && !cluster.Temporary(err) {
			failed = cmp.Or(failed, err)
			stop(err)
		}
		workers := slices.DeleteFunc(c.upgradeOrder(u.To), func(n Node) bool { return n.ControlPlane })
		left := slices.DeleteFunc(slices.Clone(workers), func(n Node) bool { return done[n.Name] || busy[n.Name] || n.at(u.To) })
		if failed == nil && err == nil {
			for _, n := range startable(workers, busy, done, u.To, u.MaxUnavailable) {
				busy[n.Name] = true
				go func() { results <- result{n.Name, u.node(ctx, n)} }()
			}
		}
		switch {
		case len(busy) > 0:
			idle = time.Now()
		case failed != nil:
			return failed
		case err == nil && len(left) == 0:
			return nil
		case time.Since(idle) > u.NodeTimeout:
			return fmt.Errorf("cannot continue with %s: --max-unavailable is %d, and that many workers are not Ready", names(left), u.MaxUnavailable)
		}
		select {
		case l := <-results:
			if err := finish(l); err != nil && failed == nil {
				failed = err
			}
		case <-ctx.Done():
			for len(busy) > 0 {
				if err := finish(<-results); err != nil && failed == nil {
					failed = err
				}
			}
			return cmp.Or(failed, context.Cause(ctx))
		case <-time.After(cmp.Or(u.Poll, 2*time.Second)):
		}
	}
}

func names(nodes []Node) string {
	return strings.Join((Cluster{Nodes: nodes}).names(), ", ")
}

// node upgrades one node. After each step, next decides what comes next.
func (u *upgrade) node(ctx context.Context, first Node) (err error) {
	f, name, boot, p := u.Fleet, first.Name, first.BootID, &progress{}
	var w waiting
	defer func() {
		if err != nil {
			u.abandon(ctx, name, p, err)
		}
		if p.job != nil {
			f.end(ctx, p.job)
		}
	}()
	for {
		n, err := f.observeNode(ctx, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		step, why := Wait, "the API server does not answer"
		switch {
		case err == nil:
			if n.BootID != boot {
				boot, w = n.BootID, waiting{} // each boot has its own time-out
			}
			step, why = next(n, p, u.To, time.Now())
		case !cluster.Temporary(err):
			return err
		}
		if step != Wait && step != Done && step != Failed {
			if err := f.steady(ctx, func() error { return f.renew(ctx) }); err != nil {
				return err
			}
		}
		switch step {
		case Stage:
			err = u.stage(ctx, n, p)
		case Cordon:
			f.report(name, Cordon, "no new pods are scheduled")
			if err = u.waitForPeers(ctx, n); err == nil {
				err = f.guard(ctx, n, u.DrainTimeout, u.NodeTimeout)
			}
			if err == nil {
				err = f.cordon(ctx, name)
			}
			p.guarded, p.drained = err == nil, false
		case Drain:
			f.report(name, Drain, "its pods are evicted")
			err = f.drain(ctx, name, u.DrainTimeout, false)
			p.drained = err == nil
		case Apply:
			err = u.apply(ctx, n, p)
		case Uncordon:
			f.report(name, Uncordon, why)
			err = f.uncordon(ctx, name)
		case Wait:
			if w.tell(why) {
				f.report(name, Wait, why)
			}
			if err = u.checkReboot(ctx, n, p); err == nil && time.Since(w.since) > u.NodeTimeout {
				err = fmt.Errorf("node %s: %s, since %v: check its console, or `journalctl -u kbuild-firstboot` on it; run the same command again to resume", name, why, u.NodeTimeout)
			}
			if err == nil {
				err = f.sleep(ctx)
			}
		case Failed:
			return fmt.Errorf("node %s: %s", name, f.reason(ctx, name, p, why))
		case Done:
			f.report(name, Done, why)
			if first.Cordoned == "" {
				return f.unguard(ctx, name)
			}
			return f.endOthers(ctx, name, true) // an earlier run has started them
		}
		if err != nil && !p.applied && u.booted(ctx, n) {
			// An earlier run, or someone else, has rebooted it.
			f.report(name, Wait, "it has rebooted meanwhile: "+err.Error())
			p.staged, p.guarded, p.drained, err = false, false, false, nil
		}
		if err != nil {
			return err
		}
		if step != Wait {
			w = waiting{}
		}
	}
}

// booted says whether a node runs in another boot than it did.
func (u *upgrade) booted(ctx context.Context, before Node) bool {
	n, err := u.observeNode(ctx, before.Name)
	return err == nil && n.BootID != before.BootID
}

// waiting is what a step waits for.
type waiting struct {
	why   string
	since time.Time // since when there is no other step
}

// tell notes why, and says whether it has changed.
func (w *waiting) tell(why string) bool {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	news := w.why != why
	w.why = why
	return news
}

// stage has the node write the image into its other slot.
func (u *upgrade) stage(ctx context.Context, n Node, p *progress) error {
	u.report(n.Name, Stage, "writing the image into its other slot, from "+u.Source)
	limited, cancel := context.WithTimeoutCause(ctx, u.NodeTimeout, fmt.Errorf("node %s has not staged the image within %v; give a longer --node-timeout", n.Name, u.NodeTimeout))
	defer cancel()
	said, err := u.do(limited, n, nodeTask{name: "stage", what: "stage the image", args: []string{"upgrade", "stage", u.Source}})
	if err != nil {
		return err
	}
	p.staged = true
	if said != "" {
		u.report(n.Name, Stage, said)
	}
	return nil
}

// waitForPeers waits until the other control planes are healthy. A worker need not
// wait.
func (u *upgrade) waitForPeers(ctx context.Context, n Node) error {
	if !n.ControlPlane {
		return nil
	}
	var w waiting
	for {
		c, err := u.Observe(ctx)
		if err == nil {
			if err = c.checkPeers(n.Name); err == nil {
				return nil
			}
		} else if !cluster.Temporary(err) {
			return err
		}
		if w.tell(err.Error()) {
			u.report(n.Name, Wait, w.why)
		}
		if time.Since(w.since) > u.NodeTimeout {
			return fmt.Errorf("%w, for %v: etcd would lose its quorum", err, u.NodeTimeout)
		}
		if err := u.sleep(ctx); err != nil {
			return err
		}
	}
}

// apply has the node reboot into its other slot.
func (u *upgrade) apply(ctx context.Context, n Node, p *progress) error {
	if err := u.waitForPeers(ctx, n); err != nil {
		return err
	}
	u.report(n.Name, Apply, "rebooting into "+u.To)
	p.event, _ = u.fellBack(ctx, n.Name)
	p.old, p.boot = n.Version, n.BootID
	job, err := u.begin(ctx, n, nodeTask{name: "apply", what: "reboot into its other slot", args: []string{"upgrade", "apply"}, last: true})
	p.job, p.applied, p.asked = job, job != nil, time.Now()
	return err
}

// checkReboot returns why the node will not reboot as asked. If the task was killed
// by a signal, the machine may be going down.
func (u *upgrade) checkReboot(ctx context.Context, n Node, p *progress) error {
	if !p.applied || n.BootID != p.boot {
		return nil
	}
	s, err := u.look(ctx, p.job)
	if err == nil && s.phase == corev1.PodFailed && s.code < 128 {
		p.applied = false
		return fmt.Errorf("node %s cannot reboot into its other slot: %s", n.Name, s.said)
	}
	if err == nil && s.phase == corev1.PodPending && time.Since(p.asked) > startPatience {
		return fmt.Errorf("cannot have node %s reboot: the Pod does not start: %s", n.Name, cmp.Or(s.said, "the kubelet does not say why"))
	}
	return err
}

// abandon uncordons a node that was not asked to reboot yet. If another operator
// holds the Lease now, it may be at work on the node, which is left alone.
func (u *upgrade) abandon(ctx context.Context, name string, p *progress, why error) {
	if _, lost := errors.AsType[taken](cmp.Or(context.Cause(ctx), why)); lost {
		u.report(name, Wait, "it is left as it is, since another operator works on the cluster; run the same command again to resume")
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if p.applied {
		n, err := u.observeNode(ctx, name)
		if err == nil && n.BootID != p.boot {
			u.unguard(ctx, name)
		}
		if s, err2 := u.look(ctx, p.job); err != nil || err2 != nil || n.BootID != p.boot || s.phase != corev1.PodPending {
			u.report(name, Wait, "it was asked to reboot, and continues by itself; it uncordons itself after the boot")
			return
		}
		u.end(ctx, p.job) // it has not started on the node yet
		p.job = nil
	}
	n, err := u.observeNode(ctx, name)
	if err == nil && n.Cordoned != n.BootID {
		u.unguard(ctx, name)
		return // kbuild has not cordoned it in this boot: its boot uncordons it
	}
	u.undoCordon(ctx, name)
}
