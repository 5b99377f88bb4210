package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/templates"
)

const (
	oldVersion = "v1.19.12"
	newVersion = "v1.20.15"
	source     = "https://images.example.com/v1.20.15/"
)

// lab is a real API server, with the controllers that matter here, and machines
// that do what a kubelet and kbuild-firstboot would.
type lab struct {
	t      *testing.T
	server *apitest.Server
	client kubernetes.Interface
	owner  metav1.OwnerReference // of pods that are no static ones

	mu       sync.Mutex
	machines []*machine
	log      []string // "w1 stage", "w1 down", "w1 up", …
	most     map[string]int
}

// machine is one of them.
type machine struct {
	lab     *lab
	name    string
	control bool
	boots   int
	down    bool
	// Knobs of a test.
	refuse   map[string]string // by order: what it says, and does nothing
	fallback string            // what its Event says when it goes back to its old version
	hang     map[string]bool   // by order: never ends
	away     func()            // what happens while it is down
	trial    time.Duration     // how long its boot takes to come out well, once it is Ready
}

// newLab starts the API server and the machines: control planes cp1…, workers
// w1….
func newLab(t *testing.T, controls, workers int) *lab {
	t.Helper()
	s := apitest.Real(t)
	s.ControllerManager(t, []string{"job", "garbagecollector", "disruption"})
	l := &lab{t: t, server: s, client: s.Client(t), most: map[string]int{}}
	ctx := t.Context()
	for _, ns := range []string{"kube-system", "default"} { // the server makes them when it has started
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if _, err := l.client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	l.must(l.client.CoreV1().ServiceAccounts("kube-system").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}))
	l.must(l.client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}))
	l.must(l.client.CoreV1().ConfigMaps("kube-system").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeadm-config"},
		Data:       map[string]string{"ClusterConfiguration": "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: " + oldVersion + "\netcd: {local: {dataDir: /var/lib/etcd}}\n"},
	}, metav1.CreateOptions{}))
	rc, err := l.client.CoreV1().ReplicationControllers("default").Create(ctx, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "owner"},
		Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(0)), Selector: map[string]string{"of": "owner"}, Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"of": "owner"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}},
	}, metav1.CreateOptions{})
	l.must(rc, err)
	l.owner = metav1.OwnerReference{APIVersion: "v1", Kind: "ReplicationController", Name: rc.Name, UID: rc.UID, Controller: new(true)}
	for i := range controls {
		l.boot(fmt.Sprint("cp", i+1), true)
	}
	for i := range workers {
		l.boot(fmt.Sprint("w", i+1), false)
	}
	return l
}

func (l *lab) must(_ any, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) machine(name string) *machine {
	return l.machines[slices.IndexFunc(l.machines, func(m *machine) bool { return m.name == name })]
}

func (l *lab) note(m *machine, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, m.name+" "+what)
	down := map[string]int{}
	for _, o := range l.machines {
		if o.down {
			down[fmt.Sprint(o.control)]++
		}
	}
	for k, n := range down {
		l.most[k] = max(l.most[k], n)
	}
}

// boot adds a machine of the old version.
func (l *lab) boot(name string, control bool) {
	l.t.Helper()
	m := &machine{lab: l, name: name, control: control, refuse: map[string]string{}, hang: map[string]bool{}}
	l.machines = append(l.machines, m)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if control {
		n.Labels["node-role.kubernetes.io/master"] = ""
	}
	l.must(l.client.CoreV1().Nodes().Create(l.t.Context(), n, metav1.CreateOptions{}))
	m.up(l.t.Context(), oldVersion)
	if control {
		for _, c := range []string{templates.Etcd, templates.APIServer} {
			l.pod(m, "kube-system", c+"-"+name, map[string]string{"component": c, "tier": "control-plane"}, true)
		}
	}
	go m.kubelet(l.t.Context())
}

// pod makes a Ready pod on a machine, a static one or one that is owned.
func (l *lab) pod(m *machine, ns, name string, labels map[string]string, static bool) {
	l.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: labels, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: m.name, HostNetwork: static, AutomountServiceAccountToken: new(false), Containers: []corev1.Container{{Name: "c", Image: "example.com/" + name + ":1"}}},
	}
	if static {
		p.Annotations[corev1.MirrorPodAnnotationKey] = "x"
	} else {
		p.OwnerReferences = []metav1.OwnerReference{l.owner}
	}
	p, err := l.client.CoreV1().Pods(ns).Create(l.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	l.must(l.client.CoreV1().Pods(ns).UpdateStatus(l.t.Context(), p, metav1.UpdateOptions{}))
}

// budget lets none of the pods with a label go.
func (l *lab) budget(name string) {
	l.t.Helper()
	one := intstr.FromInt32(1)
	l.must(l.client.PolicyV1beta1().PodDisruptionBudgets("default").Create(l.t.Context(), &policyv1beta1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1beta1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}},
	}, metav1.CreateOptions{}))
}

func (l *lab) node(name string) *corev1.Node {
	l.t.Helper()
	n, err := l.client.CoreV1().Nodes().Get(l.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// up is a boot into a version, as far as the API sees it.
func (m *machine) up(ctx context.Context, version string) {
	m.boots++
	m.status(ctx, func(n *corev1.Node) {
		n.Status.NodeInfo.KubeletVersion = version
		n.Status.NodeInfo.BootID = m.boot()
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"k8s.gcr.io/kube-proxy:" + version}}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	})
}

func (m *machine) boot() string { return fmt.Sprintf("%s-boot-%d", m.name, m.boots) }

func (m *machine) status(ctx context.Context, change func(*corev1.Node)) {
	for ctx.Err() == nil {
		n, err := m.lab.client.CoreV1().Nodes().Get(ctx, m.name, metav1.GetOptions{})
		if err == nil {
			change(n)
			_, err = m.lab.client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{})
		}
		if err == nil || apierrors.IsNotFound(err) {
			return
		}
	}
}

// kubelet ends pods that are deleted, and runs orders.
func (m *machine) kubelet(ctx context.Context) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		pods, err := m.lab.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + m.name})
		if err != nil {
			continue
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				m.lab.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
			} else if p.Labels[taskLabel] != "" && !seen[string(p.UID)] {
				seen[string(p.UID)] = true
				go m.order(ctx, p)
			}
		}
	}
}

// order is what happens when the Pod of an order starts.
func (m *machine) order(ctx context.Context, p corev1.Pod) {
	end := func(code int32, said string) {
		p.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			p.Status.Phase = corev1.PodFailed
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: p.Spec.Containers[0].Name, State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: said},
		}}}
		m.lab.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, &p, metav1.UpdateOptions{})
	}
	command := p.Spec.Containers[0].Command
	at := slices.Index(command, "--")
	if command[slices.Index(command, "--boot")+1] != m.boot() {
		end(4, "another boot")
		return
	}
	args := strings.Join(command[at+2:], " ")
	verb := p.Labels[taskLabel]
	m.lab.note(m, args)
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: p.Spec.Containers[0].Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if updated, err := m.lab.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err == nil {
		p = *updated
	}
	switch {
	case m.hang[verb]:
	case m.refuse[verb] != "":
		end(4, "kbuild-firstboot: "+m.refuse[verb]+"\n")
	case verb == guardTask:
		m.guard(ctx, p, args)
	case verb == "forget":
		end(0, "")
	case verb == "stage":
		end(0, "staged in slot b")
	case verb == "apply":
		m.reboot(ctx)
	case verb == "reset":
		m.reset(ctx)
	}
}

// guard lets pods come again when its time has passed, unless its Pod ends, or
// the boot.
func (m *machine) guard(ctx context.Context, p corev1.Pod, args string) {
	if m.lab.node(m.name).Annotations[cluster.CordonedAnnotation] == m.boot() {
		m.lab.note(m, "is guarded too late")
	}
	after, err := time.ParseDuration(strings.TrimPrefix(args, "uncordon --after "))
	if err != nil {
		m.lab.note(m, err.Error())
	}
	boot := m.boot()
	for end := time.Now().Add(after); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now, err := m.lab.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if ctx.Err() != nil || apierrors.IsNotFound(err) || err == nil && now.DeletionTimestamp != nil || m.boot() != boot {
			return
		}
	}
	m.lab.note(m, "takes pods again")
	(&Fleet{Client: m.lab.client}).uncordon(ctx, m.name)
}

func (m *machine) reboot(ctx context.Context) {
	n := m.lab.node(m.name)
	if !n.Spec.Unschedulable {
		m.lab.note(m, "reboots though pods may come")
	}
	m.down = true
	m.lab.note(m, "down")
	m.status(ctx, func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	time.Sleep(500 * time.Millisecond)
	if m.away != nil {
		m.away()
	}
	version := newVersion
	if m.fallback != "" {
		version = oldVersion
		m.lab.client.CoreV1().Events("default").Create(ctx, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{GenerateName: m.name + "."}, Reason: cluster.FellBackReason, Message: m.fallback,
			InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: m.name}, LastTimestamp: metav1.Now(),
		}, metav1.CreateOptions{})
	}
	m.down = false
	m.lab.note(m, "up")
	m.up(ctx, version)
	time.Sleep(300*time.Millisecond + m.trial)
	m.lab.note(m, "well")
	(&Fleet{Client: m.lab.client}).uncordon(ctx, m.name) // as its boot does
}

func (m *machine) reset(ctx context.Context) {
	if m.away != nil {
		m.away() // and with it all that could be told
		return
	}
	if m.control {
		m.lab.client.CoreV1().Nodes().Delete(ctx, m.name, metav1.DeleteOptions{})
		return
	}
	n := m.lab.node(m.name)
	n.Annotations[cluster.LeftAnnotation] = "2026-01-01T00:00:00Z"
	m.lab.client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
}
