package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/reset"
	"github.com/kbuild/kbuild/images"
)

// etcdCluster is a cluster whose first control plane runs real etcd, with
// certificates as kubeadm lays them out. Each machine has a loopback address of
// its own: the ports are kubeadm's.
type etcdCluster struct {
	api   *apitest.Server
	net   string // the first three bytes of the machines' addresses
	first *node.Machine
	etcd  *cluster.Etcd // asks the first member
}

func newEtcdCluster(t *testing.T) *etcdCluster {
	t.Helper()
	apitest.Bin(t, "etcd")
	e := &etcdCluster{api: apitest.Memory(t), net: fmt.Sprintf("127.%d.%d.", 1+rand.N(254), rand.N(256))}
	e.first = e.machine(t, "cp1", 11)
	if err := runSteps(t.Context(), e.first, stepCerts(), stepEtcd()); err != nil {
		t.Fatal(err)
	}
	runEtcd(t, e.first)
	e.publish(t, "cp1", 11)
	var err error
	if e.etcd, err = cluster.ConnectEtcd(e.first.Host, e.first.Node.Cluster.CertificatesDir, cluster.ClientURL(e.address(11))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.etcd.Close() })
	e.members(t) // it is up
	return e
}

func (e *etcdCluster) address(k int) string { return fmt.Sprint(e.net, k) }

// machine is a control plane of the cluster, up to the kubeconfigs; the first
// one makes the authorities, the others are given them.
func (e *etcdCluster) machine(t *testing.T, name string, k int) *node.Machine {
	t.Helper()
	m := initMachine(t)
	m.Node.Init.NodeRegistration.Name = name
	m.Node.Init.LocalAPIEndpoint.AdvertiseAddress = e.address(k)
	m.Host.Now = time.Now // etcd goes by it
	if err := m.Host.WriteFile(node.AdminKubeconfig, e.api.AdminConf, 0o600); err != nil {
		t.Fatal(err)
	}
	if e.first == nil {
		return m
	}
	m.Node.Role = config.RoleControlPlane
	for _, file := range []string{"ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"} {
		b, err := e.first.Host.ReadFile("/etc/kubernetes/pki/" + file)
		if err == nil {
			err = m.Host.WriteFile("/etc/kubernetes/pki/"+file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := runSteps(t.Context(), m, stepCerts()); err != nil {
		t.Fatal(err)
	}
	return m
}

// publish makes what a control plane's kubelet puts into the cluster.
func (e *etcdCluster) publish(t *testing.T, name string, k int) {
	t.Helper()
	c := e.api.Client(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-" + name, Namespace: metav1.NamespaceSystem, Labels: map[string]string{"component": "etcd", "tier": "control-plane"},
		Annotations: map[string]string{"kubeadm.kubernetes.io/etcd.advertise-client-urls": cluster.ClientURL(e.address(k))}}}
	_, err1 := c.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	_, err2 := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
}

// members are the members as NAME@ADDRESS, those without a vote or a start yet
// marked so.
func (e *etcdCluster) members(t *testing.T) []string {
	t.Helper()
	var list []cluster.Member
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if list, err = e.etcd.Members(t.Context()); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range list {
		text := m.Name + "@" + strings.TrimSuffix(strings.TrimPrefix(m.PeerURLs[0], "https://"+e.net), ":2380")
		if m.IsLearner {
			text += " learner"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// join takes a machine through the steps of joining etcd, as the runner does.
func (e *etcdCluster) join(t *testing.T, m *node.Machine) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	steps := []converge.Step{stepCheckEtcd(), stepEtcdJoin()}
	quiet := *m.Host // what is reported meanwhile is no change of the steps
	quiet.Effect = nil
	return converge.Steps(ctx, m, steps, &converge.Report{Host: &quiet})
}

// runEtcd is the part of the kubelet that matters here: it runs real etcd as
// the machine's manifest says, anew when that changes or etcd ends. What it
// returns cuts the machine's power; so does the end of the test.
func runEtcd(t *testing.T, m *node.Machine) (cut func()) {
	t.Helper()
	program := apitest.Bin(t, "etcd")
	log, err := os.OpenFile(m.Host.Path("/etcd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var kubelet sync.WaitGroup
	kubelet.Go(func() {
		var cmd *exec.Cmd
		var ended chan struct{}
		end := func() {
			if cmd != nil {
				cmd.Process.Kill()
				<-ended
				cmd = nil
			}
		}
		defer end()
		text := ""
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			b, err := m.Host.ReadFile(node.ManifestPath("etcd"))
			if err != nil {
				continue
			}
			if cmd != nil && text == string(b) {
				select {
				case <-ended:
				default:
					continue
				}
			}
			end()
			text = string(b)
			var pod corev1.Pod
			if err := yaml.Unmarshal(b, &pod); err != nil {
				t.Errorf("the manifest of etcd: %v", err)
				return
			}
			cmd = exec.Command(program, etcdArgs(m, pod.Spec.Containers[0].Command[1:])...)
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Errorf("cannot start etcd: %v", err)
				cmd = nil
				return
			}
			ended = make(chan struct{})
			go func(cmd *exec.Cmd, ended chan struct{}) { cmd.Wait(); close(ended) }(cmd, ended)
		}
	})
	cut = func() { cancel(); kubelet.Wait() }
	t.Cleanup(func() {
		cut()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("etcd of %s, the end of its log:\n%s", m.Node.Init.NodeRegistration.Name, b[max(0, len(b)-3000):])
		}
	})
	return cut
}

// etcdArgs are a static pod's arguments for a machine that is a directory, and
// that has 127.0.0.1 and the port of the metrics for itself in name only.
func etcdArgs(m *node.Machine, args []string) []string {
	out := []string{"--unsafe-no-fsync"} // a killed process loses nothing that it wrote
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch {
		case name == "--listen-metrics-urls":
			continue
		case name == "--listen-client-urls":
			value = strings.TrimPrefix(value, "https://127.0.0.1:2379,")
		case strings.HasPrefix(value, "/"):
			value = m.Host.Path(value)
		}
		out = append(out, name+"="+value)
	}
	return out
}

// TestEtcdJoin: a machine becomes a member with a vote, in a cluster of one and
// in a cluster of two, and a further boot changes nothing.
func TestEtcdJoin(t *testing.T) {
	e := newEtcdCluster(t)
	for k, name := range []string{"cp2", "cp3"} {
		m := e.machine(t, name, 12+k)
		var changes []string
		m.Host.Effect = func(what string) error { changes = append(changes, what); return nil }
		runEtcd(t, m)
		if err := e.join(t, m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e.publish(t, name, 12+k)
		added := slices.Index(changes, "add etcd member "+cluster.PeerURL(e.address(12+k)))
		started := slices.IndexFunc(changes, func(c string) bool { return strings.HasSuffix(c, "/etcd.yaml") })
		promoted := slices.Index(changes, "promote etcd member "+name)
		if added < 0 || started < added || promoted < started {
			t.Errorf("%s made these changes, want it added, started and promoted, in this order:\n%s", name, strings.Join(changes, "\n"))
		}
		if st, err := os.Stat(m.Host.Path(m.Node.Cluster.Etcd.Local.DataDir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: the data's directory: %v, %v", name, st, err)
		}
		n := len(changes)
		if err := e.join(t, m); err != nil || len(changes) != n {
			t.Errorf("%s: a further boot changed %q (%v)", name, changes[n:], err)
		}
	}
	if got, want := e.members(t), []string{"cp1@11", "cp2@12", "cp3@13"}; !slices.Equal(got, want) {
		t.Errorf("the members are %q, want %q", got, want)
	}
}

// TestEtcdJoinCut cuts the power of a joining machine before each change that
// it makes, etcd's included: the next boot goes on with the member that it
// finds.
func TestEtcdJoinCut(t *testing.T) {
	for k := 0; ; k++ {
		e := newEtcdCluster(t)
		m := e.machine(t, "cp2", 12)
		count, at := 0, ""
		m.Host.Effect = func(what string) error {
			if count++; count <= k {
				return nil
			}
			at = what
			litter(t, m, what)
			return errPowerCut
		}
		cut := runEtcd(t, m)
		err := e.join(t, m)
		if k > 0 && err == nil { // there is no k-th change
			t.Logf("%d changes, each cut", k)
			if k < 4 { // add, write, start, promote
				t.Errorf("it made only %d changes", k)
			}
			return
		}
		if !errors.Is(err, errPowerCut) {
			t.Fatalf("the power is cut before change %d, and the steps say %v", k+1, err)
		}
		cut()
		m.Host.Effect = nil
		runEtcd(t, m)
		if err := e.join(t, m); err != nil {
			t.Fatalf("the boot after a cut before change %d, %s: %v", k+1, at, err)
		}
		if got, want := e.members(t), []string{"cp1@11", "cp2@12"}; !slices.Equal(got, want) {
			t.Errorf("after a cut before change %d, %s, the members are %q, want %q", k+1, at, got, want)
		}
		if t.Failed() {
			return
		}
	}
}

// TestEtcdJoinDead: members that machines have left behind go before the new
// one comes, whatever of them is ours: the name and the address, only one of
// them, or neither when its Node is deleted. A cluster that needs a dead member
// for its quorum cannot be helped, so that two others live.
func TestEtcdJoinDead(t *testing.T) {
	for name, c := range map[string]struct {
		name    string // of the new machine
		k       int
		deleted bool // the old one's Node
		want    []string
	}{
		"the same machine anew": {"cp3", 13, false, []string{"cp1@11", "cp2@12", "cp3@13"}},
		"another address":       {"cp3", 14, false, []string{"cp1@11", "cp2@12", "cp3@14"}},
		"another name":          {"cp4", 13, false, []string{"cp1@11", "cp2@12", "cp4@13"}},
		"a deleted Node":        {"cp4", 14, true, []string{"cp1@11", "cp2@12", "cp4@14"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEtcdCluster(t)
			for k, name := range []string{"cp2", "cp3"} {
				m := e.machine(t, name, 12+k)
				cut := runEtcd(t, m)
				if err := e.join(t, m); err != nil {
					t.Fatal(err)
				}
				e.publish(t, name, 12+k)
				if name == "cp3" {
					cut()
				}
			}
			m := e.machine(t, c.name, c.k)
			if c.deleted {
				// Until an administrator says that it is gone, it is waited for.
				_, err := stepCheckEtcd().Done(t.Context(), m)
				if why := why(t, err); !strings.Contains(why, `etcd member "cp3"`) || !strings.Contains(why, "kubectl delete node cp3") {
					t.Errorf("it waits for %q", why)
				}
				if err := e.api.Client(t).CoreV1().Nodes().Delete(t.Context(), "cp3", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			runEtcd(t, m)
			if err := e.join(t, m); err != nil {
				t.Fatal(err)
			}
			if got := e.members(t); !slices.Equal(got, c.want) {
				t.Errorf("the members are %q, want %q", got, c.want)
			}
		})
	}
}

// TestRemoveMember takes out of etcd what a control plane has left whose machine is
// gone, and nothing else.
func TestRemoveMember(t *testing.T) {
	e := newEtcdCluster(t)
	var cut func()
	for k, name := range []string{"cp2", "cp3"} {
		m := e.machine(t, name, 12+k)
		cut = runEtcd(t, m)
		if err := e.join(t, m); err != nil {
			t.Fatal(err)
		}
		e.publish(t, name, 12+k)
	}
	delete(e.first.Baked.Release.Facts, string(images.FactClusterStatus)) // there is no kubeadm-config here
	if err := e.first.Freeze(e.first.Node); err != nil {
		t.Fatal(err)
	}
	refused := func(name, want string) {
		t.Helper()
		err := reset.RemoveMember(t.Context(), e.first, name)
		if _, final := errors.AsType[outcome.Refused](err); !final || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	refused("cp1", "it is this node")
	refused("cp3", "its member of etcd answers")
	nodes := e.api.Client(t).CoreV1().Nodes()
	ready := func(status corev1.ConditionStatus) {
		t.Helper()
		n, err := nodes.Get(t.Context(), "cp3", metav1.GetOptions{})
		if err == nil {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
			_, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ready(corev1.ConditionTrue)
	refused("cp3", "the node is Ready")
	ready(corev1.ConditionUnknown)
	cut()
	for range 2 { // it may be asked for again
		if err := reset.RemoveMember(t.Context(), e.first, "cp3"); err != nil {
			t.Fatal(err)
		}
		if got, want := e.members(t), []string{"cp1@11", "cp2@12"}; !slices.Equal(got, want) {
			t.Errorf("the members are %q, want %q", got, want)
		}
	}
}

// A living member that has this node's name is another machine's: it is left
// alone, and the node waits.
func TestEtcdJoinTaken(t *testing.T) {
	e := newEtcdCluster(t)
	m := e.machine(t, "cp1", 12)
	_, err := stepCheckEtcd().Done(t.Context(), m)
	if why := why(t, err); !strings.Contains(why, "a living member named cp1") {
		t.Errorf("it waits for %q", why)
	}
	if got, want := e.members(t), []string{"cp1@11"}; !slices.Equal(got, want) {
		t.Errorf("the members are %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(m.Host.Path("/"), node.ManifestPath("etcd"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its etcd was started: %v", err)
	}
}
