package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/util/retry"
	"k8s.io/kubectl/pkg/drain"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// evictRetry is the time between two tries to evict a pod that its
// PodDisruptionBudget protects.
const evictRetry = 5 * time.Second

// cordon lets no new pods come to a node, and marks it as one whose machine will
// go down: the boot after that lets them come again.
func (f *Fleet) cordon(ctx context.Context, name string) error {
	return f.change(ctx, "cordon", name, cluster.Cordon)
}

// uncordon undoes cordon. A node that somebody else has cordoned stays so.
func (f *Fleet) uncordon(ctx context.Context, name string) error {
	return ignoreNotFound(f.change(ctx, "uncordon", name, cluster.Uncordon))
}

// change changes whether pods may come to a node, and the marks about it.
func (f *Fleet) change(ctx context.Context, verb, name string, change func(*corev1.Node)) error {
	nodes := f.Client.CoreV1().Nodes()
	err := f.steady(ctx, func() error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			n, err := nodes.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			return cluster.ChangeNode(ctx, f.Client, n, change)
		})
	})
	if err != nil {
		return fmt.Errorf("cannot %s node %s: %w", verb, name, err)
	}
	return nil
}

// drain evicts the pods of a node as kubectl drain does: what a
// PodDisruptionBudget protects is waited for, pods of DaemonSets stay, emptyDir
// volumes go. Pods that nobody makes anew are only lost when forced.
func (f *Fleet) drain(ctx context.Context, name string, timeout time.Duration, force bool) error {
	told := &held{tell: func(line string) { f.report(name, Drain, line) }}
	h := &drain.Helper{
		Ctx: ctx, Client: f.Client, Force: force, GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		Timeout: timeout, EvictErrorRetryDelay: evictRetry, Out: io.Discard, ErrOut: told,
		AdditionalFilters: []drain.PodFilter{orders},
	}
	list, errs := h.GetPodsForDeletion(name)
	if len(errs) > 0 {
		text := strings.ReplaceAll(utilerrors.NewAggregate(errs).Error(), " (use --force to override)", "")
		return fmt.Errorf("cannot drain node %s: %s; nobody would make such pods anew: delete them, or have a controller own them", name, text)
	}
	err := h.DeleteOrEvictPods(list.Pods())
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case told.last() != "":
		return fmt.Errorf("cannot drain node %s within %v: %w; last: %s; loosen the PodDisruptionBudget, make more pods Ready elsewhere, or give --drain-timeout more", name, timeout, err, told.last())
	}
	return fmt.Errorf("cannot drain node %s: %w", name, err)
}

// held keeps and tells why pods are not evicted yet.
type held struct {
	tell func(line string)

	mu   sync.Mutex
	line string
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if line := strings.TrimSpace(string(p)); line != h.line {
		h.line = line
		h.tell(line)
	}
	return len(p), nil
}

func (h *held) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.line
}

// steadyTime is how long a single request is tried while the API server does not
// answer: one that is restarted, or fails over, is back by then.
const steadyTime = 2 * time.Minute

// steady makes a request, again while the error is one that passes.
func (f *Fleet) steady(ctx context.Context, request func() error) error {
	for begun := time.Now(); ; {
		err := request()
		if !cluster.Temporary(err) || time.Since(begun) > steadyTime {
			return err
		}
		if ended := f.sleep(ctx); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

// sleep sleeps until it is time for another look.
func (f *Fleet) sleep(ctx context.Context) error {
	poll := f.Poll
	if poll == 0 {
		poll = 2 * time.Second
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(poll):
		return nil
	}
}
