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

// stopwatches record when the control plane came up and a node became Ready. Each
// starts at the first request, and polls often with small requests, in the same
// way for everything that is compared.
type stopwatches struct {
	mu   sync.Mutex
	seen map[string]*guest.Times // by node
}

func (s *stopwatches) times(ctx context.Context, a guest.TimesArgs) (guest.Times, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seen[a.Node]
	if t == nil {
		t = &guest.Times{}
		s.seen[a.Node] = t
		go s.watch(context.WithoutCancel(ctx), a.Node, t)
	}
	return *t, nil
}

func (s *stopwatches) watch(ctx context.Context, node string, t *guest.Times) {
	const every = 50 * time.Millisecond
	note := func(t *time.Time) {
		s.mu.Lock()
		*t = time.Now()
		s.mu.Unlock()
	}
	for !healthz(ctx) {
		sleep(ctx, every)
	}
	note(&t.API)
	var k *kube
	for {
		if k == nil {
			k, _ = connect()
		}
		if k != nil && nodeReady(ctx, k, node) {
			note(&t.Ready)
			return
		}
		sleep(ctx, every)
	}
}

// healthz asks for a page that needs no credentials, so that no kubeconfig is
// needed. The server's certificate is not checked.
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

// nodeReady says whether the node is Ready; with an empty name, whether any is.
func nodeReady(ctx context.Context, k *kube, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var o metav1.ListOptions
	if name != "" {
		o.FieldSelector = "metadata.name=" + name
	}
	l, err := k.core.Nodes().List(ctx, o)
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
