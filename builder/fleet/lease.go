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

// leaseName is the Lease in kube-system that one operator holds at a time.
const leaseName = "kbuild-upgrade"

// leaseTime is how long a Lease is valid without being renewed. It is renewed four
// times as often.
const leaseTime = time.Minute

// taken is the error that another operator holds the Lease.
type taken struct{ error }

// locked does work while no other operator can. If the context ends, work's error
// only says so, and the reason for the end is returned instead.
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
// returns ends if another operator takes it over, because the API was away for
// longer than it is valid.
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

// acquire takes the Lease, if no one holds it. Clocks may differ: a holder whose
// Lease has expired by our clock only counts as gone if it does not renew it while
// we watch.
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
			return taken{fmt.Errorf("another operator works on this cluster: %s holds Lease kube-system/%s until %s, or longer if it renews it; if it is gone for good, wait until then, or run `kubectl -n kube-system delete lease %[2]s`",
				holder, leaseName, until.Local().Format(time.TimeOnly))}
		}
		if holder != "" && holder != f.Who && seen == nil && l.Spec.RenewTime != nil {
			seen = l.Spec.RenewTime
			f.report("", Wait, fmt.Sprintf("checking whether %s, who held Lease kube-system/%s, is still at work", holder, leaseName))
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

// renew renews the Lease. The error is taken if another operator has held it
// meanwhile, even if it has released it again.
func (f *Fleet) renew(ctx context.Context) error {
	f.renewing.Lock()
	defer f.renewing.Unlock()
	leases := f.Client.CoordinationV1().Leases(metav1.NamespaceSystem)
	l, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if holder := holderOf(l); err == nil && holder != f.Who {
		return taken{fmt.Errorf("cannot continue: %s has taken over Lease kube-system/%s", cmp.Or(holder, "another operator"), leaseName)}
	}
	if err == nil {
		f.hold(l, false)
		_, err = leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: cluster.Manager})
	}
	return leaseError(err)
}

// hold makes l ours. The update carries the resource version that was read: of two
// operators that take it at the same time one fails.
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

// leaseEnd is when a Lease expires unless it is renewed.
func leaseEnd(l *coordinationv1.Lease) time.Time {
	if l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return time.Time{}
	}
	return l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second)
}

// releaseLease lets the next operator start at once.
func (f *Fleet) releaseLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	leases := f.Client.CoordinationV1().Leases(metav1.NamespaceSystem)
	l, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil || holderOf(l) != f.Who {
		return // it expires by itself
	}
	l.Spec.HolderIdentity = nil
	leases.Update(ctx, l, metav1.UpdateOptions{FieldManager: cluster.Manager})
}
