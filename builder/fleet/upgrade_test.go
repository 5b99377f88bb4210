package fleet

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// fleet is an operator, and tells what it has reported.
func (l *lab) fleet(who string) (*Fleet, func() string) {
	var mu sync.Mutex
	var said strings.Builder
	f := &Fleet{Client: l.client, Who: who, Poll: 100 * time.Millisecond, LeaseTime: 8 * time.Second, Report: func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		said.WriteString(e.Node + ": " + string(e.Step) + ": " + e.Message + "\n")
	}}
	return f, func() string { mu.Lock(); defer mu.Unlock(); return said.String() }
}

// hear waits until an operator has reported text.
func (l *lab) hear(said func() string, text string) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(said(), text); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("nobody says %q:\n%s", text, said())
		}
	}
}

func options(limit int) UpgradeOptions {
	return UpgradeOptions{To: newVersion, Source: source, MaxUnavailable: limit, DrainTimeout: time.Minute, NodeTimeout: time.Minute}
}

// clean holds that an upgrade has left nothing behind.
func (l *lab) clean() {
	l.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		jobs, err := l.client.BatchV1().Jobs("").List(l.t.Context(), metav1.ListOptions{})
		if err != nil {
			l.t.Fatal(err)
		}
		if len(jobs.Items) == 0 {
			break
		}
		if time.Now().After(end) {
			l.t.Errorf("%d Jobs are left", len(jobs.Items))
			break
		}
	}
	lease, err := l.client.CoordinationV1().Leases("kube-system").Get(l.t.Context(), leaseName, metav1.GetOptions{})
	if err != nil || holderOf(lease) != "" {
		l.t.Errorf("the Lease is held by %q, %v", holderOf(lease), err)
	}
	for _, m := range l.machines {
		n, err := l.client.CoreV1().Nodes().Get(l.t.Context(), m.name, metav1.GetOptions{})
		if err == nil && (n.Spec.Unschedulable || n.Annotations[cluster.CordonedAnnotation] != "") {
			l.t.Errorf("node %s is still cordoned", n.Name)
		}
	}
}

// downs are the nodes that went down, in order.
func (l *lab) downs() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, line := range l.log {
		if name, what, _ := strings.Cut(line, " "); what == "down" {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

func TestUpgrade(t *testing.T) {
	l := newLab(t, 3, 4)
	l.pod(l.machine("w1"), "default", "guarded", map[string]string{"app": "guarded"}, false)
	l.pod(l.machine("w2"), "default", "other", map[string]string{"app": "other"}, false)
	l.budget("guarded")
	f, said := l.fleet("a")
	ended := make(chan error, 1)
	go func() { ended <- f.Upgrade(t.Context(), options(2)) }()

	// What the budget protects keeps w1 up, until there is another pod.
	l.hear(said, "disruption budget")
	if _, err := l.client.CoreV1().Pods("default").Get(t.Context(), "guarded", metav1.GetOptions{}); err != nil {
		t.Errorf("the protected pod: %v", err)
	}
	second, _ := l.fleet("b")
	if err := second.Upgrade(t.Context(), options(1)); err == nil || !strings.Contains(err.Error(), "another operator works on this cluster: a holds") {
		t.Errorf("a second operator: %v", err)
	}
	l.pod(l.machine("cp1"), "default", "guarded-2", map[string]string{"app": "guarded"}, false)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	t.Logf("reported:\n%s", said())
	for _, m := range l.machines {
		if v := l.node(m.name).Status.NodeInfo.KubeletVersion; v != newVersion {
			t.Errorf("node %s is of %s", m.name, v)
		}
	}
	if got := l.downs(); !strings.HasPrefix(got, "cp1 cp2 cp3 ") || len(strings.Fields(got)) != 7 {
		t.Errorf("they went down as %s", got)
	}
	if l.most["true"] != 1 || l.most["false"] > 2 {
		t.Errorf("at most %d control planes and %d workers were down", l.most["true"], l.most["false"])
	}
	if s := strings.Join(l.log, "\n"); strings.Contains(s, "though pods may come") || !strings.Contains(s, "w1 upgrade stage "+source) {
		t.Errorf("the machines saw\n%s", s)
	}
	if _, err := l.client.CoreV1().Pods("default").Get(t.Context(), "other", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod of w2: %v", err)
	}
	l.clean()
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Errorf("again: %v", err)
	}
	if got := l.downs(); len(strings.Fields(got)) != 7 {
		t.Errorf("again, they went down as %s", got)
	}
}

func TestUpgradeFellBack(t *testing.T) {
	l := newLab(t, 1, 3)
	l.machine("w1").fallback = "kubelet was not healthy within 5m"
	f, said := l.fleet("a")
	err := f.Upgrade(t.Context(), options(1))
	if err == nil || !strings.Contains(err.Error(), "node w1: it has fallen back to v1.19.12") || !strings.Contains(err.Error(), "the node reports: kubelet was not healthy within 5m") {
		t.Fatalf("%v\n%s", err, said())
	}
	if got := l.downs(); got != "cp1 w1" {
		t.Errorf("down went %s", got)
	}
	l.clean()

	// With a better image the same command goes on.
	l.machine("w1").fallback = ""
	if err := f.Upgrade(t.Context(), options(2)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	if got := strings.Fields(l.downs()); len(got) != 5 || slices.Index(got[2:], "cp1") >= 0 {
		t.Errorf("down went %s", got)
	}
	l.clean()
}

func TestUpgradeRefusedByNode(t *testing.T) {
	l := newLab(t, 1, 1)
	l.machine("cp1").refuse["stage"] = "cannot stage this image: the slot holds 2 GiB, the image is larger"
	f, said := l.fleet("a")
	if err := f.Upgrade(t.Context(), options(1)); err == nil || err.Error() != "node cp1 cannot stage the image: cannot stage this image: the slot holds 2 GiB, the image is larger" {
		t.Errorf("%v\n%s", err, said())
	}
	l.clean()
	l.machine("cp1").refuse = map[string]string{"apply": "nothing is staged"}
	if err := f.Upgrade(t.Context(), options(1)); err == nil || !strings.Contains(err.Error(), "nothing is staged") {
		t.Errorf("%v\n%s", err, said())
	}
	l.clean()
	if l.downs() != "" {
		t.Errorf("down went %s", l.downs())
	}
}

// TestUpgradeStopped stops an upgrade where it stages, where it drains, and
// where the node was told to reboot; then it goes on.
func TestUpgradeStopped(t *testing.T) {
	l := newLab(t, 0, 1)
	l.boot("cp1", true)
	w1 := l.machine("w1")
	l.pod(w1, "default", "guarded", map[string]string{"app": "guarded"}, false)
	l.budget("guarded")
	stop := func(when string) {
		t.Helper()
		f, said := l.fleet("a")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- f.Upgrade(ctx, options(1)) }()
		l.hear(said, when)
		time.Sleep(500 * time.Millisecond)
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("stopped at %q: %v", when, err)
		}
		t.Logf("stopped at %q:\n%s", when, said())
	}
	w1.hang["stage"] = true
	stop("w1: stage")
	l.clean()
	w1.hang["stage"] = false
	stop("disruption budget")
	l.clean()
	if err := l.client.PolicyV1beta1().PodDisruptionBudgets("default").Delete(t.Context(), "guarded", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w1.hang["apply"] = true
	stop("w1: wait: it is shutting down")
	if n := l.node("w1"); !n.Spec.Unschedulable || n.Annotations[cluster.CordonedAnnotation] == "" {
		t.Error("a node that was told to reboot takes pods before it does")
	}
	// As if the reboot had never come: the next run goes on.
	w1.hang["apply"] = false
	f, said := l.fleet("b")
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	if got := l.downs(); got != "cp1 w1" {
		t.Errorf("down went %s", got)
	}
	l.clean()
}

func TestUpgradeQuorum(t *testing.T) {
	l := newLab(t, 3, 0)
	p, err := l.client.CoreV1().Pods("kube-system").Get(t.Context(), "etcd-cp3", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Conditions[0].Status = corev1.ConditionFalse
	l.must(l.client.CoreV1().Pods("kube-system").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}))
	f, said := l.fleet("a")
	o := options(1)
	o.NodeTimeout = 3 * time.Second
	if err := f.Upgrade(t.Context(), o); err == nil || !strings.Contains(err.Error(), "pod etcd-cp3 is not Ready") {
		t.Errorf("%v\n%s", err, said())
	}
	if l.downs() != "" {
		t.Errorf("down went %s", l.downs())
	}
	l.clean()
}

func TestReset(t *testing.T) {
	l := newLab(t, 3, 2)
	l.pod(l.machine("w1"), "default", "other", map[string]string{"app": "other"}, false)
	f, said := l.fleet("a")
	o := ResetOptions{DrainTimeout: time.Minute, NodeTimeout: time.Minute}
	gone := func(name string) {
		t.Helper()
		if _, err := l.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("node %s: %v", name, err)
		}
	}
	if err := f.Reset(t.Context(), "w9", o); err == nil || !strings.Contains(err.Error(), "cp1, cp2, cp3, w1, w2") {
		t.Errorf("no such node: %v", err)
	}
	l.machine("w1").refuse["reset"] = "another run is under way"
	if err := f.Reset(t.Context(), "w1", o); err == nil || !strings.Contains(err.Error(), "node w1 cannot reset itself: another run is under way") {
		t.Errorf("%v\n%s", err, said())
	}
	l.clean()
	l.machine("w1").refuse = nil
	if err := f.Reset(t.Context(), "w1", o); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	gone("w1")
	o.KeepNode = true
	if err := f.Reset(t.Context(), "w2", o); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	if l.node("w2").Annotations[cluster.LeftAnnotation] == "" {
		t.Error("w2 has not left")
	}
	o.KeepNode = false
	if err := f.Reset(t.Context(), "cp3", o); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	gone("cp3")
	// The machine and its pods are gone; what is left of cp2 is not Ready.
	l.machine("cp2").status(t.Context(), func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	if err := f.Reset(t.Context(), "cp1", o); err == nil || !strings.Contains(err.Error(), "etcd has no quorum") {
		t.Errorf("%v", err)
	}
	if err := f.Reset(t.Context(), "cp2", o); err == nil || !strings.Contains(err.Error(), "--force removes it") {
		t.Errorf("%v", err)
	}
	o.Force = true
	if err := f.Reset(t.Context(), "cp2", o); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	gone("cp2")
	o.Force = false
	if err := f.Reset(t.Context(), "cp1", o); err == nil || !strings.Contains(err.Error(), "last control plane") {
		t.Errorf("%v", err)
	}
	if s := strings.Join(l.log, "\n") + "\n"; !strings.Contains(s, "w1 reset --yes\n") || !strings.Contains(s, "cp1 forget cp2\n") || strings.Contains(s, "cp1 reset") || strings.Contains(s, "--force") {
		t.Errorf("the machines saw\n%s", s)
	}
}

// TestResetRejoined: a worker that was back before anybody looked has the Node
// that it had; it stays.
func TestResetRejoined(t *testing.T) {
	l := newLab(t, 1, 1)
	f, said := l.fleet("a")
	n, err := f.observeNode(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	l.machine("w1").up(t.Context(), oldVersion)
	if err := f.deleteNode(t.Context(), n, ResetOptions{}); err != nil || !strings.Contains(said(), "already joined again") {
		t.Errorf("%v\n%s", err, said())
	}
	l.node("w1")
	n.BootID = l.machine("w1").boot()
	if err := f.deleteNode(t.Context(), n, ResetOptions{}); err != nil || !strings.Contains(said(), "no longer a node of this cluster") {
		t.Errorf("%v\n%s", err, said())
	}
}

// TestUpgradeOnTrial: a control plane is not taken while the boot of another one
// may still come out badly, also where an administrator has cordoned that one,
// which stays cordoned.
func TestUpgradeOnTrial(t *testing.T) {
	l := newLab(t, 3, 0)
	theirs := func(cordoned bool) {
		t.Helper()
		n := l.node("cp1")
		n.Spec.Unschedulable = cordoned
		l.must(l.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}))
	}
	theirs(true)
	l.machine("cp1").trial = 4 * time.Second
	f, said := l.fleet("a")
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	l.mu.Lock()
	well, next := slices.Index(l.log, "cp1 well"), slices.Index(l.log, "cp2 down")
	l.mu.Unlock()
	if well < 0 || next < well {
		t.Errorf("the machines saw\n%s", strings.Join(l.log, "\n"))
	}
	n := l.node("cp1")
	_, marked := n.Annotations[cluster.CordonedAnnotation]
	_, stays := n.Annotations[cluster.StaysCordonedAnnotation]
	if !n.Spec.Unschedulable || marked || stays {
		t.Errorf("cordoned %t, %v", n.Spec.Unschedulable, n.Annotations)
	}
	theirs(false)
	l.clean()
}

// TestUpgradeKilled: what an operator leaves who is gone without a word, the
// next run sets right: a node that was cordoned for a reset or an upgrade, before
// the upgrade and when there is nothing to do any more, and a reboot that was
// asked for.
func TestUpgradeKilled(t *testing.T) {
	l := newLab(t, 1, 2)
	f, said := l.fleet("a")
	cordon := func(name string) {
		t.Helper()
		if err := f.cordon(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	cordon("w2")
	cordon("w1")
	n, err := f.observeNode(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	l.machine("w1").away = func() { time.Sleep(3 * time.Second) }
	if _, err := f.begin(t.Context(), n, nodeTask{name: "apply", args: []string{"upgrade", "apply"}, last: true}); err != nil {
		t.Fatal(err)
	}
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	if got := strings.Fields(l.downs()); len(got) != 3 {
		t.Errorf("down went %s", got)
	}
	l.clean()
	cordon("w2")
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	l.clean()
}

// TestUpgradeGuard: a node whose operator is gone while it drains
// uncordons itself, and its guard is no pod that a drain evicts.
func TestUpgradeGuard(t *testing.T) {
	l := newLab(t, 0, 1)
	l.boot("cp1", true)
	l.machine("cp1").up(t.Context(), newVersion)
	l.pod(l.machine("w1"), "default", "guarded", map[string]string{"app": "guarded"}, false)
	l.budget("guarded")
	f, said := l.fleet("a")
	var dead atomic.Bool
	f.Client = l.server.ClientThrough(t, func(next http.RoundTripper) http.RoundTripper {
		return through(func(req *http.Request) (*http.Response, error) {
			if dead.Load() {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return next.RoundTrip(req)
		})
	})
	o := options(1)
	o.DrainTimeout, o.NodeTimeout = 8*time.Second, 4*time.Second
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	go f.Upgrade(ctx, o)
	l.hear(said, "disruption budget")
	dead.Store(true)
	for end := time.Now().Add(time.Minute); l.node("w1").Spec.Unschedulable; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("w1 is still cordoned; the machines saw\n%s", strings.Join(l.log, "\n"))
		}
	}
	l.mu.Lock()
	log := strings.Join(l.log, "\n")
	l.mu.Unlock()
	if !strings.Contains(log, "w1 uncordon --after 12s\n") || !strings.Contains(log, "w1 takes pods again") || strings.Contains(log, "too late") {
		t.Errorf("the machines saw\n%s", log)
	}
	kill()
	if err := l.client.PolicyV1beta1().PodDisruptionBudgets("default").Delete(t.Context(), "guarded", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(f.LeaseTime)
	f, said = l.fleet("b")
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	l.clean()
}

// TestUpgradeTaken: whoever has lost the Lease leaves the node as it is, for
// another operator is at work.
func TestUpgradeTaken(t *testing.T) {
	l := newLab(t, 0, 1)
	l.boot("cp1", true)
	l.machine("cp1").up(t.Context(), newVersion)
	l.pod(l.machine("w1"), "default", "guarded", map[string]string{"app": "guarded"}, false)
	l.budget("guarded")
	f, said := l.fleet("a")
	ended := make(chan error, 1)
	go func() { ended <- f.Upgrade(t.Context(), options(1)) }()
	l.hear(said, "disruption budget")
	for {
		lease, err := l.client.CoordinationV1().Leases("kube-system").Get(t.Context(), leaseName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		other := "b"
		lease.Spec.HolderIdentity = &other
		if _, err = l.client.CoordinationV1().Leases("kube-system").Update(t.Context(), lease, metav1.UpdateOptions{}); err == nil {
			break
		}
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "b has taken over Lease") {
		t.Errorf("%v\n%s", err, said())
	}
	if n := l.node("w1"); !n.Spec.Unschedulable || l.downs() != "" {
		t.Errorf("the node was uncordoned under the other's hands, or rebooted:\n%s", said())
	}
}

// TestUpgradeLostAnswer: the answer to the order to reboot is lost, and the
// operator stops. The order counts as given: the node is not uncordoned.
func TestUpgradeLostAnswer(t *testing.T) {
	l := newLab(t, 0, 1)
	l.boot("cp1", true)
	l.machine("cp1").up(t.Context(), newVersion)
	f, said := l.fleet("a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Client = l.server.ClientThrough(t, func(next http.RoundTripper) http.RoundTripper {
		return through(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/jobs") && err == nil && l.orders("apply") > 0 {
				resp.Body.Close()
				for end := time.Now().Add(30 * time.Second); l.downs() == "" && time.Now().Before(end); {
					time.Sleep(50 * time.Millisecond)
				}
				cancel()
				return nil, io.ErrUnexpectedEOF
			}
			return resp, err
		})
	})
	if err := f.Upgrade(ctx, options(1)); err != context.Canceled || !strings.Contains(said(), "it was asked to reboot") {
		t.Errorf("%v\n%s", err, said())
	}
	if s := strings.Join(l.log, "\n"); strings.Contains(s, "though pods may come") || strings.Contains(said(), "it is uncordoned") {
		t.Errorf("the machines saw\n%s\n%s", s, said())
	}
}

type through func(*http.Request) (*http.Response, error)

func (t through) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }

// orders are how many Jobs of a name there are.
func (l *lab) orders(name string) int {
	jobs, err := l.client.BatchV1().Jobs("kube-system").List(l.t.Context(), metav1.ListOptions{LabelSelector: taskLabel + "=" + name})
	if err != nil {
		return 0
	}
	return len(jobs.Items)
}

func TestLease(t *testing.T) {
	l := newLab(t, 0, 0)
	a, _ := l.fleet("a")
	b, _ := l.fleet("b")
	a.LeaseTime, b.LeaseTime = 2*time.Second, 2*time.Second
	held, unlock, err := a.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // twice as long as it holds without being renewed
		if _, _, err := b.lock(t.Context()); err == nil || !strings.Contains(err.Error(), "a holds") {
			t.Fatalf("taken twice: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	unlock()
	if held.Err() == nil {
		t.Error("its context goes on")
	}
	_, unlock, err = b.lock(t.Context())
	if err != nil {
		t.Fatalf("released, and not free: %v", err)
	}
	unlock()
	// One whose holder has died is free when it has ended, and who comes back
	// too late hears of it.
	if err := a.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.acquire(t.Context()); err == nil {
		t.Fatal("a died a moment ago, and b has the Lease")
	}
	time.Sleep(2100 * time.Millisecond)
	if err := b.acquire(t.Context()); err != nil {
		t.Errorf("a died long ago: %v", err)
	}
	if err := a.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "b has taken") {
		t.Errorf("a comes back: %v", err)
	}
	// By the clock of one that is ahead the Lease is over; it is renewed all the
	// same, and so it is held.
	ended := make(chan error, 1)
	time.Sleep(2100 * time.Millisecond)
	go func() { ended <- a.acquire(t.Context()) }()
	time.Sleep(500 * time.Millisecond)
	if err := b.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "b holds") {
		t.Errorf("taken from one who goes on: %v", err)
	}
}
