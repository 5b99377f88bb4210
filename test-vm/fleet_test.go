package testvm

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// answering is two pods behind a Service, on different nodes. IMAGE is one that
// every version has; the program is the checker.
const answering = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: answering}
spec:
  replicas: 2
  selector: {matchLabels: {app: answering}}
  template:
    metadata: {labels: {app: answering}}
    spec:
      tolerations: [{operator: Exists, effect: NoSchedule}]
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: answering}}}]}}
      containers:
      - name: checker
        image: IMAGE
        imagePullPolicy: Never
        command: ["/kbuild-test/checker", "answer", ":8080"]
        readinessProbe: {httpGet: {port: 8080, path: /health}, periodSeconds: 1}
        volumeMounts: [{name: checker, mountPath: /kbuild-test, readOnly: true}]
      volumes: [{name: checker, hostPath: {path: ` + guest.Dir + `}}]
---
apiVersion: v1
kind: Service
metadata: {name: answering}
spec: {type: NodePort, selector: {app: answering}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
`

// staying is a pod on the worker that no drain may take. IMAGE is CoreDNS's.
const staying = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: staying}
spec:
  selector: {matchLabels: {app: staying}}
  template:
    metadata: {labels: {app: staying}}
    spec:
      nodeSelector: {kubernetes.io/hostname: worker}
      containers: [{name: coredns, image: IMAGE, imagePullPolicy: Never, args: ["-dns.port=5354"]}]
`

// deploy applies a manifest of a Deployment and waits for its pods, of which at
// least one must stay when a node is drained. The budget's API differs between
// versions; kubectl knows the one to use.
func deploy(t *testing.T, m Machine, name, manifest, image string) {
	t.Helper()
	manifest = strings.ReplaceAll(manifest, "IMAGE", image)
	waitSh(t, m, "the Deployment "+name, adminKubectl+"apply --filename=- <<'END'\n"+manifest+"END\n")
	waitSh(t, m, "its budget", "{ "+adminKubectl+"get poddisruptionbudget "+name+" || "+adminKubectl+"create poddisruptionbudget "+name+" --selector=app="+name+" --min-available=1; }")
	waitSh(t, m, "its pods", adminKubectl+"rollout status deployment "+name+" --timeout=60s")
}

// flannelOf is an image that does not change from one version to the next.
func flannelOf(t *testing.T, b images.Baked) string {
	t.Helper()
	if !slices.Contains(b.Images, b.Release.Flannel) {
		t.Fatalf("the image has no flannel: %v", b.Images)
	}
	return b.Release.Flannel
}

// operator is a person with a kubeconfig, on the network of the machines.
type operator struct {
	t          *testing.T
	n          *Network
	kubeconfig string
}

// newOperator takes the administrator's kubeconfig of a control plane.
func newOperator(t *testing.T, n *Network, m Machine) operator {
	t.Helper()
	file := filepath.Join(t.TempDir(), "admin.conf")
	if err := os.WriteFile(file, []byte(sh(t, m, "cat /etc/kubernetes/admin.conf")), 0o600); err != nil {
		t.Fatal(err)
	}
	return operator{t, n, file}
}

// kbuild runs the operator's kbuild, and returns what it printed and its exit
// code.
func (o operator) kbuild(args ...string) (string, int) {
	o.t.Helper()
	cmd := o.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	logf("kbuild %s: %v\n%s", strings.Join(args, " "), err, out.String())
	if cmd.ProcessState == nil {
		o.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (o operator) command(args ...string) *exec.Cmd {
	argv := append([]string{"--net=/run/netns/" + o.n.s.rec.Netns, "--", kbuildProgram()}, args...)
	return exec.CommandContext(o.t.Context(), "nsenter", append(argv, "--kubeconfig", o.kubeconfig)...)
}

// outage asks the Service answering, until the test ends, at one node after
// another until one answers. It counts such rounds: all of them, those without an
// answer, and how many of those came one after another, at most.
type outage struct{ asked, failed, missed atomic.Int64 }

func watchOutage(t *testing.T, n *Network, addresses ...string) *outage {
	o := &outage{}
	ctx := t.Context()
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, _, addr string) (conn net.Conn, err error) {
		err = inNetns(n.s.rec.Netns, func() (err error) {
			conn, err = net.DialTimeout("tcp4", addr, time.Second)
			return err
		})
		return conn, err
	}}}
	ask := func(addr string) bool {
		resp, err := c.Get("http://" + addr + ":30080/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	go func() {
		for missed := int64(0); ctx.Err() == nil; {
			o.asked.Add(1)
			if missed++; slices.ContainsFunc(addresses, ask) {
				missed = 0
			} else if ctx.Err() == nil {
				o.failed.Add(1)
			}
			o.missed.Store(max(o.missed.Load(), missed))
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	return o
}

// killed kills an operator's kbuild while it drains the worker: the worker takes
// pods again by itself.
func (o operator) killed(m Machine, coredns string) {
	o.t.Helper()
	deploy(o.t, m, "staying", staying, coredns)
	cmd := o.command("reset", "worker", "--yes", "--drain-timeout", "40s", "--node-timeout", "20s")
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	cordoned := adminKubectl + "get node worker --output=jsonpath='{.spec.unschedulable}{.metadata.annotations.kbuild\\.dev/cordoned}'"
	waitSh(o.t, m, "a cordoned worker", cordoned+" | grep -q ^true..")
	time.Sleep(2 * time.Second) // it drains
	cmd.Process.Kill()
	cmd.Wait()
	if cmd.ProcessState.Success() || sh(o.t, m, cordoned) == "" {
		o.t.Error("the operator was not killed while the worker was cordoned")
	}
	waitSh(o.t, m, "a worker that takes pods again", "test -z \"$("+cordoned+")\"")
	sh(o.t, m, adminKubectl+"delete deployment,poddisruptionbudget staying")
}

// TestScenarioFleet moves three control planes and a worker to the next minor
// version by one command of the operator's, while a Service goes on answering.
// The worker falls back the first time: the command stops there and says so,
// and goes on when it is run again. Before, an operator is killed who has cordoned
// the worker.
func TestScenarioFleet(t *testing.T) {
	containers(t)
	old, next := imageOf(t), otherImage(t)
	n := wire(t)
	id := newIdentity(t)
	endpoint := balancer(t, n)
	cp := controlPlanes(t, n, id, endpoint)
	var machines []Machine
	add := func(o Options) {
		image := next
		o.Next = &image
		machines = append(machines, boot(t, o))
	}
	for k := 1; k <= 3; k++ {
		add(cp(k))
	}
	add(on(n, 14, "worker", metadata(t, n, 14, "worker", "worker", joinFields(endpoint, pin(t, id.cert))...)))
	for _, m := range machines {
		waitReady(t, m)
	}
	cp1 := machines[0]
	deploy(t, cp1, "answering", answering, flannelOf(t, baked(t, cp1)))
	o := newOperator(t, n, cp1)
	service := watchOutage(t, n, n.Address(11), n.Address(12), n.Address(13), n.Address(14))

	if out, code := o.kbuild("upgrade", "plan", "--to", next.Version); code != 0 || !strings.Contains(out, "worker") {
		t.Fatalf("plan: %d", code)
	}
	o.killed(cp1, corednsOf(t, baked(t, cp1)))
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit())
	defer cancel()
	swapped := make(chan error, len(machines))
	follow := func(m Machine, fallsBack bool) { go func() { swapped <- Swapped(ctx, m, fallsBack) }() }
	for k, m := range machines {
		follow(m, k == 3)
	}
	out, code := o.kbuild("upgrade", "apply", "--to", next.Version, "--source", "/var/tmp/next", "--yes")
	if code != 1 || !strings.Contains(out, "worker") || !strings.Contains(out, "fallen back") {
		t.Fatalf("a worker that falls back: exit code %d", code)
	}
	for range machines {
		if err := <-swapped; err != nil {
			t.Fatal(err)
		}
	}
	follow(machines[3], false)
	if _, code = o.kbuild("upgrade", "apply", "--to", next.Version, "--source", "/var/tmp/next", "--yes"); code != 0 {
		t.Fatalf("run again: exit code %d", code)
	}
	if err := <-swapped; err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		waitReady(t, m)
	}
	got := strings.Fields(sh(t, cp1, adminKubectl+"get nodes --output=jsonpath='{range .items[*]}{.metadata.name}={.status.nodeInfo.kubeletVersion}{.spec.unschedulable} {end}'"))
	var want []string
	for _, name := range []string{"cp1", "cp2", "cp3", "worker"} {
		want = append(want, name+"="+next.Version)
	}
	if !sameSet(got, want) {
		t.Errorf("nodes %q, want %q: all of %s, none cordoned (before: %s)", got, want, next.Version, old.Version)
	}
	if out := sh(t, cp1, adminKubectl+"--namespace=kube-system get jobs,leases --output=name"); strings.Contains(out, "job") {
		t.Errorf("Jobs are left: %s", out)
	}
	waitSh(t, cp1, "the pods", adminKubectl+"rollout status deployment answering --timeout=60s")
	missed := service.missed.Load()
	logf("the Service was asked %d times; %d times in a row without an answer at most", service.asked.Load(), missed)
	if missed > 5 {
		t.Error("the Service did not go on answering")
	}
}
