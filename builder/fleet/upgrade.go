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
	MaxUnavailable int           // workers that may be away at once
	DrainTimeout   time.Duration // for each node; 0 is no limit
	NodeTimeout    time.Duration // for staging, and for coming back
}

// Upgrade takes all nodes to another version: the control planes one at a time
// and only while all others are well, then the workers. What is of that version
// already is left alone. The first failure stops it: a node that has not
// rebooted yet takes pods again, one that has goes on by itself.
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
	for _, n := range c.order(o.To) {
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

// workers takes the workers, as many at once as may be away.
func (u *upgrade) workers(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	flying, done := map[string]bool{}, map[string]bool{}
	type landing struct {
		name string
		err  error
	}
	landed := make(chan landing)
	land := func(l landing) error {
		delete(flying, l.name)
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
		workers := slices.DeleteFunc(c.order(u.To), func(n Node) bool { return n.ControlPlane })
		left := slices.DeleteFunc(slices.Clone(workers), func(n Node) bool { return done[n.Name] || flying[n.Name] || n.at(u.To) })
		if failed == nil && err == nil {
			for _, n := range startable(workers, flying, done, u.To, u.MaxUnavailable) {
				flying[n.Name] = true
				go func() { landed <- landing{n.Name, u.node(ctx, n)} }()
			}
		}
		switch {
		case len(flying) > 0:
			idle = time.Now()
		case failed != nil:
			return failed
		case err == nil && len(left) == 0:
			return nil
		case time.Since(idle) > u.NodeTimeout:
			return fmt.Errorf("cannot go on with %s: --max-unavailable is %d, and as many workers are not Ready", names(left), u.MaxUnavailable)
		}
		select {
		case l := <-landed:
			if err := land(l); err != nil && failed == nil {
				failed = err
			}
		case <-ctx.Done():
			for len(flying) > 0 {
				if err := land(<-landed); err != nil && failed == nil {
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

// node takes one node to the version. What comes next is asked anew after each
// step.
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
				boot, w = n.BootID, waiting{} // each boot has its time
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
			f.report(name, Cordon, "no new pods come")
			if err = u.spared(ctx, n); err == nil {
				err = f.guard(ctx, n, u.DrainTimeout, u.NodeTimeout)
			}
			if err == nil {
				err = f.cordon(ctx, name)
			}
			p.guarded, p.drained = err == nil, false
		case Drain:
			f.report(name, Drain, "its pods leave")
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
			if err = u.refused(ctx, n, p); err == nil && time.Since(w.since) > u.NodeTimeout {
				err = fmt.Errorf("node %s: %s, since %v: look at its console, or at `journalctl -u kbuild-firstboot` on it; the same command goes on with it later", name, why, u.NodeTimeout)
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
			return f.endOthers(ctx, name, true) // an earlier run has begun it
		}
		if err != nil && !p.applied && u.booted(ctx, n) {
			// An earlier run has told it to reboot, or somebody has.
			f.report(name, Wait, "it has booted meanwhile: "+err.Error())
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

// waiting is what is waited for.
type waiting struct {
	why   string
	since time.Time // since when there is no other step
}

// tell notes why, and says whether that is news.
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
	u.report(n.Name, Stage, "its other slot is written from "+u.Source)
	limited, cancel := context.WithTimeoutCause(ctx, u.NodeTimeout, fmt.Errorf("node %s has not staged the image within %v; --node-timeout gives it more", n.Name, u.NodeTimeout))
	defer cancel()
	told, err := u.do(limited, n, order{name: "stage", what: "stage the image", args: []string{"upgrade", "stage", u.Source}})
	if err != nil {
		return err
	}
	p.staged = true
	if told != "" {
		u.report(n.Name, Stage, told)
	}
	return nil
}

// spared waits until a control plane may go down. A worker may.
func (u *upgrade) spared(ctx context.Context, n Node) error {
	if !n.ControlPlane {
		return nil
	}
	var w waiting
	for {
		c, err := u.Observe(ctx)
		if err == nil {
			if err = c.spare(n.Name); err == nil {
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
	if err := u.spared(ctx, n); err != nil {
		return err
	}
	u.report(n.Name, Apply, "it reboots into "+u.To)
	p.event, _ = u.fellBack(ctx, n.Name)
	p.old, p.boot = n.Version, n.BootID
	job, err := u.begin(ctx, n, order{name: "apply", what: "reboot into its other slot", args: []string{"upgrade", "apply"}, last: true})
	p.job, p.applied, p.told = job, job != nil, time.Now()
	return err
}

// refused says why the node will not reboot although it was told to. What was
// killed by a signal may have been so because the machine goes down.
func (u *upgrade) refused(ctx context.Context, n Node, p *progress) error {
	if !p.applied || n.BootID != p.boot {
		return nil
	}
	s, err := u.look(ctx, p.job)
	if err == nil && s.phase == corev1.PodFailed && s.code < 128 {
		p.applied = false
		return fmt.Errorf("node %s cannot reboot into its other slot: %s", n.Name, s.said)
	}
	if err == nil && s.phase == corev1.PodPending && time.Since(p.told) > startPatience {
		return fmt.Errorf("cannot tell node %s to reboot: its Pod does not start: %s", n.Name, cmp.Or(s.said, "the kubelet does not say why"))
	}
	return err
}

// abandon leaves a node as it was, where it has not been told to reboot. Whoever
// has taken the Lease over may be at work on it.
func (u *upgrade) abandon(ctx context.Context, name string, p *progress, why error) {
	if _, lost := errors.AsType[taken](cmp.Or(context.Cause(ctx), why)); lost {
		u.report(name, Wait, "it stays as it is: another operator works on the cluster; the same command goes on with it later")
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
			u.report(name, Wait, "it was told to reboot, and goes on by itself; what it boots lets pods come again")
			return
		}
		u.end(ctx, p.job) // nobody on the node has heard of it yet
		p.job = nil
	}
	n, err := u.observeNode(ctx, name)
	if err == nil && n.Cordoned != n.BootID {
		u.unguard(ctx, name)
		return // it is not cordoned by us, or its boot lets pods come again
	}
	u.takeBack(ctx, name)
}
