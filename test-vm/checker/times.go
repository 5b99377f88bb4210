package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// stopwatch notes when the control plane came up. It begins to look when it is
// first asked, and asks often but little, the same in all that is compared.
type stopwatch struct {
	once sync.Once
	mu   sync.Mutex
	t    guest.Times
}

func (s *stopwatch) times(ctx context.Context) (guest.Times, error) {
	s.once.Do(func() { go s.watch(context.WithoutCancel(ctx)) })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t, nil
}

func (s *stopwatch) watch(ctx context.Context) {
	const every = 50 * time.Millisecond
	note := func(t *time.Time) {
		s.mu.Lock()
		*t = time.Now()
		s.mu.Unlock()
	}
	for !healthz(ctx) {
		sleep(ctx, every)
	}
	note(&s.t.API)
	var k *kube
	for {
		if k == nil {
			k, _ = connect()
		}
		if k != nil && nodeReady(ctx, k) {
			note(&s.t.Ready)
			return
		}
		sleep(ctx, every)
	}
}

// healthz asks what anybody may ask, so that no kubeconfig is needed; whose
// certificate it is does not matter here.
func healthz(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:6443/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func nodeReady(ctx context.Context, k *kube) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l, err := k.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	for _, n := range l.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return true
			}
		}
	}
	return false
}
