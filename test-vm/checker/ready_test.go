package main

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestUnready(t *testing.T) {
	err := errors.New(`an error on the server ("[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: not finished\nreadyz check failed") has prevented the request from succeeding`)
	if got, want := unready(err), "not so yet: etcd, poststarthook/rbac"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := unready(errors.New("connection refused")); got != "connection refused" {
		t.Errorf("got %q", got)
	}
}

// What was so before this boot does not count.
func TestStale(t *testing.T) {
	boot := time.Date(2026, 11, 24, 2, 0, 0, 500e6, time.UTC)
	at := func(d time.Duration) metav1.Time { return metav1.NewTime(boot.Add(d).Truncate(time.Second)) }
	node := func(status corev1.ConditionStatus, beat metav1.Time) *corev1.Node {
		return &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastHeartbeatTime: beat}}}}
	}
	pod := func(ready bool, started metav1.Time) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Ready: ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}}}}}
	}
	for name, c := range map[string]struct {
		missing string
		ok      bool
	}{
		"node ready":              {nodeMissing(node(corev1.ConditionTrue, at(5*time.Second)), boot), true},
		"node ready, same second": {nodeMissing(node(corev1.ConditionTrue, at(0)), boot), true},
		"node ready before boot":  {nodeMissing(node(corev1.ConditionTrue, at(-5*time.Second)), boot), false},
		"node not ready":          {nodeMissing(node(corev1.ConditionFalse, at(5*time.Second)), boot), false},
		"node without condition":  {nodeMissing(&corev1.Node{}, boot), false},
		"pod ready":               {podMissing(pod(true, at(5*time.Second)), boot), true},
		"pod ready before boot":   {podMissing(pod(true, at(-5*time.Second)), boot), false},
		"pod not ready":           {podMissing(pod(false, at(5*time.Second)), boot), false},
		"pod without containers":  {podMissing(&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}, boot), false},
	} {
		if (c.missing == "") != c.ok {
			t.Errorf("%s: missing %q", name, c.missing)
		}
	}
}
