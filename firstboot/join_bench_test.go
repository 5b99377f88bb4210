package firstboot

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/templates"
)

// BenchmarkJoinAtOnce measures what one join costs when 10 and when 500 nodes
// join one real API server at once: the real steps, from discovery to the
// signed certificate, and the Node registered with it, without a machine and a
// kubelet each. ms/join is the time until all have joined, divided by their
// number; cpu-ms/join is what nodes, API server, etcd and controller manager
// together took of the processors.
func BenchmarkJoinAtOnce(b *testing.B) {
	s := apitest.Real(b)
	m := clusterRun(b, s, testUserdata)
	registerNode(b, s.Client(b))
	if err := runSteps(b.Context(), m, clusterSteps()...); err != nil {
		b.Fatal(err)
	}
	s.ControllerManager(b, []string{"bootstrapsigner", "csrapproving", "csrsigning"},
		"--kube-api-qps="+templates.ControllerManagerQPS, "--kube-api-burst="+templates.ControllerManagerBurst)
	pin, err := pinOf(s)
	if err != nil {
		b.Fatal(err)
	}
	waitSigned(b, s)
	made := 0
	for _, n := range []int{10, 500} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var took, cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				var nodes []*node.Machine
				for range n {
					made++
					nodes = append(nodes, joiningRun(b, m, s, fmt.Sprint("joins-", made), pin))
				}
				b.StartTimer()
				begin, used := time.Now(), processorTime(b)
				var g errgroup.Group
				for _, node := range nodes {
					g.Go(func() error { return joinAndRegister(b.Context(), node) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
				took += time.Since(begin)
				cpu += processorTime(b) - used
			}
			each := float64(n * b.N)
			b.ReportMetric(float64(took.Microseconds())/1000/each, "ms/join")
			b.ReportMetric(float64(cpu.Microseconds())/1000/each, "cpu-ms/join")
			b.ReportMetric(0, "ns/op") // that of all together says nothing
		})
	}
}

// joinAndRegister runs the steps that bring a node its certificate, as the
// runner does, and registers the Node as its kubelet would.
func joinAndRegister(ctx context.Context, m *node.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	steps := []converge.Step{stepDiscovery(), stepTLSBootstrap()}
	if err := converge.Steps(ctx, m, steps, &converge.Report{Host: m.Host}); err != nil {
		return err
	}
	c, _, err := cluster.Connect(m.Host, node.KubeletKubeconfig)
	if err != nil {
		return err
	}
	name := m.Node.Init.NodeRegistration.Name
	_, err = c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}, metav1.CreateOptions{})
	return err
}

// joiningRun is a machine with the user-data of a worker.
func joiningRun(b testing.TB, first *node.Machine, s *apitest.Server, name, pin string) *node.Machine {
	b.Helper()
	machine := config.Machine{Hostname: name, Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}}}
	n, _, err := config.Load(first.Baked, machine, config.Document{Source: "test", Data: []byte("apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\nname: " + name +
		"\nendpoint: " + strings.TrimPrefix(s.URL, "https://") + "\ntoken: abcdef.0123456789abcdef\ncaCertHashes: [" + pin + "]\n")})
	if err != nil {
		b.Fatal(err)
	}
	h := testHost(b)
	h.Now, h.Hostname = time.Now, func() (string, error) { return name, nil }
	h.Systemd.Active = func(context.Context, string) (string, error) { return "inactive", nil }
	h.Probe.Links = func() ([]host.Link, error) {
		return []host.Link{{Name: "eth0", Up: true, Addrs: machine.Links[0].Addrs}}, nil
	}
	m := &node.Machine{Baked: first.Baked, Node: n, Host: h}
	if err := m.Freeze(n); err != nil {
		b.Fatal(err)
	}
	return m
}

func pinOf(s *apitest.Server) (string, error) {
	text, err := os.ReadFile(filepath.Join(s.Dir, "pki", "ca.crt"))
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	return cluster.Pin(cert), nil
}

// waitSigned waits until the controller manager has signed cluster-info.
func waitSigned(b testing.TB, s *apitest.Server) {
	b.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		info, err := s.Client(b).CoreV1().ConfigMaps(metav1.NamespacePublic).Get(b.Context(), "cluster-info", metav1.GetOptions{})
		if err == nil && info.Data["jws-kubeconfig-abcdef"] != "" {
			return
		}
	}
	b.Fatal("cluster-info is not signed after 2 minutes")
}

// processorTime is what this process and its children have used so far. The
// children run on: their use is in /proc (proc_pid_stat(5), utime and stime, in
// hundredths of a second).
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		b.Fatal(err)
	}
	total := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	children := 0
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range threads {
		list, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		for _, pid := range strings.Fields(string(list)) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			if len(f) < 13 {
				continue // it ended
			}
			children++
			for _, ticks := range f[11:13] {
				n, err := strconv.ParseInt(ticks, 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				total += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	if children < 3 {
		b.Fatalf("%d children of this process are seen, want etcd, API server and controller manager", children)
	}
	return total
}
