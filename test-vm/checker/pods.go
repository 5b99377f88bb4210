package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/test-vm/guest"
)

const podsName = "everywhere"

// pods makes a DaemonSet and a Service, unless they exist or this is a worker,
// which is not allowed to. It then asks every node's pod and the Service, from the
// network namespace of this node's own pod.
func pods(ctx context.Context, a guest.PodsArgs) (guest.Pods, error) {
	r := guest.Pods{Answers: map[string]string{}}
	boot, err := bootTime()
	if err != nil {
		return r, err
	}
	k, err := connect()
	if err != nil {
		return r, err
	}
	if k.admin {
		if err := makePods(ctx, k, a.Image); err != nil {
			return r, err
		}
	}
	svc, err := k.core.Services(podNamespace).Get(ctx, podsName, metav1.GetOptions{})
	if err != nil {
		return r, err
	}
	l, err := k.core.Pods(podNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + podsName})
	if err != nil {
		return r, err
	}
	ips := map[string]string{}
	for _, p := range l.Items {
		since := boot
		if p.Spec.NodeName != k.node {
			since = time.Time{} // another machine's boot
		}
		if p.Spec.HostNetwork {
			return r, fmt.Errorf("pod %s has its node's network", p.Name)
		}
		if w := podMissing(&p, since); w != "" {
			r.Waiting = "pod on " + p.Spec.NodeName + ": " + w
			continue
		}
		ips[p.Spec.NodeName] = p.Status.PodIP
	}
	if len(ips) < a.Nodes || ips[k.node] == "" {
		if r.Waiting == "" {
			r.Waiting = fmt.Sprintf("pods on %v, want %d nodes and this one, %s", ips, a.Nodes, k.node)
		}
		return r, nil
	}
	dial, err := dialFrom(ips[k.node])
	if err != nil {
		return r, err
	}
	r.Waiting = ""
	for node, ip := range ips {
		if r.Answers[node], err = getOver(ctx, dial, "http://"+bracket(ip)+":8080/health"); err != nil {
			r.Waiting = fmt.Sprintf("pod on %s: %v", node, err)
		}
	}
	if r.Service, err = getOver(ctx, dial, "http://"+bracket(svc.Spec.ClusterIP)+"/health"); err != nil {
		r.Waiting = err.Error()
	}
	return r, nil
}

// dialFrom finds the network namespace that has the address, below /run/netns
// where containerd keeps those of pods, and returns what connects from there.
func dialFrom(ip string) (func(context.Context, string, string) (net.Conn, error), error) {
	files, err := filepath.Glob("/run/netns/*")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		has := false
		err := inNetns(f, func() error {
			addrs, err := net.InterfaceAddrs()
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok && n.IP.String() == ip {
					has = true
				}
			}
			return err
		})
		if err != nil || !has {
			continue // gone with its pod, or another's
		}
		return func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = inNetns(f, func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		}, nil
	}
	return nil, fmt.Errorf("no network namespace of %d in /run/netns has address %s", len(files), ip)
}

// inNetns runs f in a network namespace, for the sockets that it makes. Its
// thread is never unlocked, so that it ends here.
func inNetns(file string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(file)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func makePods(ctx context.Context, k *kube, image string) error {
	return makeAnswering(ctx, k, podsName, func(meta metav1.ObjectMeta) error {
		_, err := k.apps.DaemonSets(podNamespace).Create(ctx, &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: meta.Labels}, Template: answerPod(meta, image)}}, metav1.CreateOptions{})
		return err
	})
}
