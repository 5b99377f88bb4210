package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// ready reports how far the node is. What was true before this boot does not
// count, although the API server still says it for a while.
func ready(ctx context.Context) (guest.Ready, error) {
	r := guest.Ready{Firstboot: firstbootStatus()}
	boot, err := bootTime()
	if err != nil {
		return r, err
	}
	missing := func(format string, args ...any) (guest.Ready, error) {
		r.Waiting = fmt.Sprintf(format, args...)
		return r, nil
	}
	k, err := connect()
	if os.IsNotExist(err) {
		return missing("no %s or %s yet", adminConf, kubeletConf)
	}
	if err != nil {
		return missing("%v", err)
	}
	if err := k.healthy(ctx); err != nil {
		return missing("API server: %s", unready(err))
	}
	r.API = true
	name, err := k.thisNode(ctx)
	if err != nil {
		return missing("%v", err)
	}
	node, err := k.core.Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return missing("node %s: %v", name, err)
	}
	if why := nodeMissing(node, boot); why != "" {
		return missing("node %s: %s", name, why)
	}
	r.Node = true
	if k.admin { // a worker's kubelet need not see pods of other nodes
		if why := podsMissing(ctx, k, "k8s-app=kube-dns", name, false, 2, boot); why != "" {
			return missing("CoreDNS: %s", why)
		}
		r.CoreDNS = true
	}
	if why := podsMissing(ctx, k, "k8s-app=kube-proxy", name, true, 1, boot); why != "" {
		return missing("kube-proxy: %s", why)
	}
	r.KubeProxy = true
	return r, nil
}

// unready shortens what /readyz says: the checks that failed, without those
// that hold.
func unready(err error) string {
	var failed []string
	for _, f := range strings.Split(err.Error(), "\\n") { // client-go quotes the body
		if name, ok := strings.CutPrefix(f, "[-]"); ok {
			name, _, _ = strings.Cut(name, " ")
			failed = append(failed, name)
		}
	}
	if failed == nil {
		return err.Error()
	}
	return "not so yet: " + strings.Join(failed, ", ")
}

func nodeMissing(n *corev1.Node, boot time.Time) string {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.LastHeartbeatTime.Add(time.Second).Before(boot) { // API times are cut to seconds
			return "no word from its kubelet since this boot"
		}
		if c.Status != corev1.ConditionTrue {
			return c.Reason + ": " + c.Message
		}
		return ""
	}
	return "has no Ready condition"
}

// podsMissing says what keeps want pods of kube-system with the label from
// being ready: all of them, or those on this node only. The containers of those
// on this node must have started since its boot.
func podsMissing(ctx context.Context, k *kube, label, node string, here bool, want int, boot time.Time) string {
	o := metav1.ListOptions{LabelSelector: label}
	if here {
		o.FieldSelector = "spec.nodeName=" + node
	}
	l, err := k.core.Pods("kube-system").List(ctx, o)
	if err != nil {
		return err.Error()
	}
	n, why := 0, ""
	for _, p := range l.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		since := boot
		if p.Spec.NodeName != node {
			since = time.Time{} // another machine's boot
		}
		if w := podMissing(&p, since); w != "" {
			why = p.Name + ": " + w
			continue
		}
		n++
	}
	if n >= want {
		return ""
	}
	return fmt.Sprintf("%d of %d pods ready; %s", n, want, why)
}

func podMissing(p *corev1.Pod, boot time.Time) string {
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			return c.State.Waiting.Reason + " " + c.State.Waiting.Message
		case c.State.Running == nil || !c.Ready:
			return "not ready"
		case c.State.Running.StartedAt.Add(time.Second).Before(boot):
			return "not started again since this boot"
		}
	}
	if p.Status.Phase != corev1.PodRunning || len(p.Status.ContainerStatuses) == 0 {
		why := string(p.Status.Phase)
		for _, c := range p.Status.Conditions {
			if c.Status == corev1.ConditionFalse && c.Message != "" {
				why += ": " + c.Message
			}
		}
		return why
	}
	return ""
}

// firstbootStatus is /run/kbuild/status.json in one line, for progress only.
func firstbootStatus() string {
	b, err := os.ReadFile("/run/kbuild/status.json")
	if err != nil {
		return ""
	}
	var s map[string]any
	if json.Unmarshal(b, &s) != nil {
		return "unreadable status"
	}
	line := ""
	for _, k := range []string{"state", "step", "why", "error"} {
		if v, ok := s[k].(string); ok && v != "" {
			line += " " + v
		}
	}
	if line == "" {
		return ""
	}
	return line[1:]
}
