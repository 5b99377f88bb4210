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

// cordon cordons a node, and marks it as one whose machine will reboot: that boot
// uncordons it.
func (f *Fleet) cordon(ctx context.Context, name string) error {
	return f.change(ctx, "cordon", name, cluster.Cordon)
}

// uncordon undoes cordon. A node that someone else has cordoned stays cordoned.
func (f *Fleet) uncordon(ctx context.Context, name string) error {
	return ignoreNotFound(f.change(ctx, "uncordon", name, cluster.Uncordon))
}

// change changes whether a node is cordoned, and its marks.
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
// volumes are deleted. Pods without a controller are only deleted by force.
func (f *Fleet) drain(ctx context.Context, name string, timeout time.Duration, force bool) error {
	waits := &held{tell: func(line string) { f.report(name, Drain, line) }}
	h := &drain.Helper{
		Ctx: ctx, Client: f.Client, Force: force, GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		Timeout: timeout, EvictErrorRetryDelay: evictRetry, Out: io.Discard, ErrOut: waits,
		AdditionalFilters: []drain.PodFilter{skipTasks},
	}
	list, errs := h.GetPodsForDeletion(name)
	if len(errs) > 0 {
		text := strings.ReplaceAll(utilerrors.NewAggregate(errs).Error(), " (use --force to override)", "")
		return fmt.Errorf("cannot drain node %s: %s; such pods would be lost: delete them, or have a controller own them", name, text)
	}
	err := h.DeleteOrEvictPods(list.Pods())
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case waits.last() != "":
		return fmt.Errorf("cannot drain node %s within %v: %w; last: %s; relax the PodDisruptionBudget, run more Ready pods elsewhere, or give a longer --drain-timeout", name, timeout, err, waits.last())
	}
	return fmt.Errorf("cannot drain node %s: %w", name, err)
}

// held reports why pods are not evicted yet.
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

// steadyTime is how long a request is retried while the API server does not answer:
// one that restarts or fails over is back by then.
const steadyTime = 2 * time.Minute

// steady makes a request, and retries it while its error is temporary.
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

// sleep sleeps until it is time to observe the node again.
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
