package fleet

import (
	"cmp"
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// leaseName is the Lease in kube-system that one operator at a time holds.
const leaseName = "kbuild-upgrade"

// leaseTime is how long a Lease holds that is not renewed. It is renewed four
// times as often.
const leaseTime = time.Minute

// taken is the error that somebody else holds the Lease.
type taken struct{ error }

// locked does work while nobody else does any. What is under way when the
// context ends says no more than that, so why it ended is returned instead.
func (f *Fleet) locked(ctx context.Context, work func(context.Context) error) error {
	ctx, unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err = work(ctx); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// lock takes the Lease and keeps it until unlock is called. The context that it
// returns ends when another operator has taken it over meanwhile: the API was
// away for longer than it holds.
func (f *Fleet) lock(ctx context.Context) (locked context.Context, unlock func(), err error) {
	if err := f.acquire(ctx); err != nil {
		return nil, nil, err
	}
	locked, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-locked.Done():
				return
			case <-time.After(f.leaseTime() / 4):
			}
			if err := f.renew(locked); err != nil && !cluster.Temporary(err) && locked.Err() == nil {
				cancel(err)
				return
			}
		}
	}()
	return locked, func() {
		cancel(nil)
		<-ended
		f.releaseLease(ctx)
	}, nil
}

func (f *Fleet) leaseTime() time.Duration { return cmp.Or(f.LeaseTime, leaseTime) }

// acquire takes the Lease, if nobody holds it. Clocks may differ: a holder whose
// time is over by ours is only gone when it does not renew the Lease either while
// it is watched.
func (f *Fleet) acquire(ctx context.Context) error {
	leases := f.Client.CoordinationV1().Leases(metav1.NamespaceSystem)
	var seen *metav1.MicroTime
	for {
		l, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName}}
			f.hold(l, true)
			_, err = leases.Create(ctx, l, metav1.CreateOptions{FieldManager: cluster.Manager})
			return leaseError(err)
		}
		if err != nil {
			return leaseError(err)
		}
		holder := holderOf(l)
		until := leaseEnd(l)
		if holder != "" && holder != f.Who && (time.Now().Before(until) || seen != nil && !seen.Equal(l.Spec.RenewTime)) {
			return taken{fmt.Errorf("cannot work on this cluster now: %s does, and holds Lease kube-system/%s until %s unless it goes on; if it is gone for good, wait until then or `kubectl -n kube-system delete lease %[2]s`",
				holder, leaseName, until.Local().Format(time.TimeOnly))}
		}
		if holder != "" && holder != f.Who && seen == nil && l.Spec.RenewTime != nil {
			seen = l.Spec.RenewTime
			f.report("", Wait, fmt.Sprintf("for a sign of %s, who has held Lease kube-system/%s", holder, leaseName))
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(f.leaseTime() / 2):
			}
			continue
		}
		f.hold(l, true)
		_, err = leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: cluster.Manager})
		return leaseError(err)
	}
}

// renew keeps the Lease. The error is taken when somebody else has had it
// meanwhile, whether he still has it or not.
func (f *Fleet) renew(ctx context.Context) error {
	f.renewing.Lock()
	defer f.renewing.Unlock()
	leases := f.Client.CoordinationV1().Leases(metav1.NamespaceSystem)
	l, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if holder := holderOf(l); err == nil && holder != f.Who {
		return taken{fmt.Errorf("cannot go on: %s has taken Lease kube-system/%s meanwhile", cmp.Or(holder, "another operator"), leaseName)}
	}
	if err == nil {
		f.hold(l, false)
		_, err = leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: cluster.Manager})
	}
	return leaseError(err)
}

// hold makes l ours from now on. Whoever writes it names the version that was
// read: of two that take it at once one fails.
func (f *Fleet) hold(l *coordinationv1.Lease, anew bool) {
	now, seconds := metav1.NowMicro(), int32(f.leaseTime().Seconds())
	if anew {
		l.Spec.AcquireTime = &now
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &f.Who, &seconds, &now
}

func leaseError(err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return taken{fmt.Errorf("cannot take Lease kube-system/%s: another operator took it at the same moment: %w", leaseName, err)}
	}
	if err != nil {
		return fmt.Errorf("cannot take Lease kube-system/%s: %w", leaseName, err)
	}
	return nil
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// leaseEnd is when a Lease ends that is not renewed.
func leaseEnd(l *coordinationv1.Lease) time.Time {
	if l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return time.Time{}
	}
	return l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second)
}

// releaseLease lets the next operator come at once.
func (f *Fleet) releaseLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	leases := f.Client.CoordinationV1().Leases(metav1.NamespaceSystem)
	l, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil || holderOf(l) != f.Who {
		return // it ends by itself
	}
	l.Spec.HolderIdentity = nil
	leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: cluster.Manager})
}
