package testvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// TestScenarioJoin powers a first control plane and a worker on with user-data
// that was made before either: at once, and the worker first. Pods on both
// reach each other and a Service, and nothing secret stays on the worker.
func TestScenarioJoin(t *testing.T) {
	t.Run("together", func(t *testing.T) { joinScenario(t, false) })
	t.Run("worker-first", func(t *testing.T) {
		containers(t) // an emulated machine more shows nothing more
		joinScenario(t, true)
	})
}

func joinScenario(t *testing.T, workerFirst bool) {
	n := wire(t)
	id := newIdentity(t)
	endpoint := n.Address(11) + ":6443"
	initData := metadata(t, n, 11, "init", "cp1", "endpoint: "+endpoint, "token: "+token, id.field())
	workerData := metadata(t, n, 12, "worker", "w1", joinFields(endpoint, pin(t, id.cert))...)
	var first, worker Machine
	if workerFirst {
		worker = boot(t, on(n, 12, "w1", workerData))
		waitSaid(t, worker, endpoint)
		first = boot(t, on(n, 11, "cp1", initData))
	} else {
		first = boot(t, on(n, 11, "cp1", initData))
		worker = boot(t, on(n, 12, "w1", workerData))
	}
	waitReady(t, first)
	waitReady(t, worker)
	coredns := corednsOf(t, baked(t, first))
	waitPods(t, first, coredns, 2)
	waitPods(t, worker, coredns, 2)
	noSecrets(t, worker, strings.Split(token, ".")[1])
}

// waitSaid waits until a machine that waits for the API server says so where
// people look: in status, on the console and in the journal.
func waitSaid(t *testing.T, m Machine, endpoint string) {
	t.Helper()
	waitSh(t, m, "word of what it waits for",
		"kbuild-firstboot status | grep -F "+endpoint+" && journalctl --boot --unit=kbuild-firstboot.service | grep -F "+endpoint)
	if !strings.Contains(ConsoleTail(m, 1000), endpoint) {
		t.Errorf("the console does not say that the machine waits for %s", endpoint)
	}
	if out := sh(t, m, "systemctl is-active kubelet.service || true"); strings.TrimSpace(out) == "active" {
		t.Error("the kubelet runs before there is a cluster")
	}
}

// noSecrets holds that none of the secrets is on a joined node's disk, in its
// journal, on its console or in its status. What the API server keeps is the
// cluster's: etcd's data is left out.
func noSecrets(t *testing.T, m Machine, secrets ...string) {
	t.Helper()
	waitSh(t, m, "the end of kbuild-firstboot", "systemctl is-active --quiet kbuild-firstboot.service && sync")
	patterns := strings.Join(secrets, "\n") + "\n"
	look := map[string]string{
		"disk":    "grep -rIlF --binary-files=text -f - --exclude-dir=etcd /var /etc/kubernetes /run/kbuild",
		"journal": "cat >/run/patterns; journalctl --output=export --no-pager | grep -aF -f /run/patterns; code=$?; rm /run/patterns; exit $code",
	}
	for what, script := range look {
		search := func(patterns string) guest.Exec {
			return ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"sh", "-c", script}, Stdin: patterns, Seconds: 110})
		}
		if e := search("kbuild-firstboot\n"); e.Code != 0 {
			t.Errorf("the search finds nothing at all in the %s of %s: %s", what, m.Places().Dir, e.Stderr)
		}
		e := search(patterns)
		switch {
		case e.Code == 0:
			t.Errorf("secrets are in the %s of %s: %s", what, m.Places().Dir, e.Stdout)
		case e.Code != 1 || e.Stderr != "": // grep(1): 1 is that it found none
			t.Errorf("cannot search the %s: exit status %d: %s", what, e.Code, e.Stderr)
		}
	}
	b, err := os.ReadFile(m.Places().Console)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if strings.Contains(string(b), s) {
			t.Errorf("a secret is on the console of %s", m.Places().Dir)
		}
	}
}

// TestScenarioJoinCut cuts the power of a worker and of a control plane at each
// step of their lists, one after the other, as soon as the step has begun: the
// last boot ends with a Ready node, the only one of its name.
func TestScenarioJoinCut(t *testing.T) {
	containers(t)
	n := wire(t)
	id := newIdentity(t)
	endpoint := n.Address(11) + ":6443"
	first := boot(t, on(n, 11, "cp1", metadata(t, n, 11, "init", "cp1", "endpoint: "+endpoint, "token: "+token, "certificateKey: "+certificateKey, id.field())))
	waitReady(t, first)
	fields := joinFields(endpoint, pin(t, id.cert))
	for k, role := range []string{"worker", "control-plane"} {
		data, secrets := fields, []string{strings.Split(token, ".")[1]}
		if role == "control-plane" {
			data, secrets = append(fields, "certificateKey: "+certificateKey), append(secrets, certificateKey)
		}
		// It lives as long as the first one: etcd counts on both.
		m := boot(t, on(n, 12+k, role, metadata(t, n, 12+k, role, role, data...)))
		t.Run(role, func(t *testing.T) {
			cutEach(t, m)
			waitReady(t, m)
			noSecrets(t, m, secrets...)
			if role == "control-plane" {
				if got, want := members(t, m, role), []string{"cp1=started", role + "=started"}; !sameSet(got, want) {
					t.Errorf("etcd's members are %q, want %q", got, want)
				}
			}
		})
	}
	waitReady(t, first)
	want := "control-plane cp1 worker"
	if got := strings.Join(strings.Fields(sh(t, first, adminKubectl+"get nodes --output=custom-columns=:.metadata.name --sort-by=.metadata.name")), " "); got != want {
		t.Errorf("the cluster's nodes are %q, want %q", got, want)
	}
}

// cutEach cuts the power at the first step, boots, cuts it at the second, and
// so on until a boot has no further step. The machine runs afterwards.
func cutEach(t *testing.T, m Machine) {
	t.Helper()
	for k := 0; ; k++ {
		name := waitBegun(t, m, k)
		if name == "" {
			if k < 10 {
				t.Errorf("the list has only %d steps", k)
			}
			return
		}
		if err := m.PowerCut(); err != nil {
			t.Fatal(err)
		}
		logf("%s: power cut at step %d, %s", m.Places().Dir, k+1, name)
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// waitBegun waits until the k-th step of the list has begun in this boot, and
// returns its name; "" when all steps hold and there is no k-th. A step may
// take less time than a question to the checker, so that the status is read
// from outside, through the root directory of the container's init.
func waitBegun(t *testing.T, m Machine, k int) string {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	for {
		var s struct {
			State, Why string
			Steps      []struct{ Name, State, Why string }
		}
		for _, pid := range childrenOf(m.Places().PID) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/kbuild/status.json", pid))
			if err == nil && json.Unmarshal(b, &s) == nil {
				break
			}
		}
		if k < len(s.Steps) && s.Steps[k].State != "pending" {
			return s.Steps[k].Name
		}
		if s.State == "done" {
			return ""
		}
		if ok, err := m.Running(); !ok {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("step %d did not begin: %v: %+v", k+1, context.Cause(ctx), s)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// TestScenarioControlPlanes powers on three control planes behind a balancer,
// ends one for good, and gives its name and address to a new machine.
func TestScenarioControlPlanes(t *testing.T) {
	containers(t)
	n := wire(t)
	id := newIdentity(t)
	cp := controlPlanes(t, n, id, balancer(t, n))
	first, second, third := boot(t, cp(1)), boot(t, cp(2)), boot(t, cp(3))
	for _, m := range []Machine{first, second, third} {
		waitReady(t, m)
	}
	three := []string{"cp1=started", "cp2=started", "cp3=started"}
	if got := members(t, first, "cp1"); !sameSet(got, three) {
		t.Errorf("etcd's members are %q, want %q", got, three)
	}
	noSecrets(t, second, strings.Split(token, ".")[1], certificateKey)

	if err := second.PowerCut(); err != nil {
		t.Fatal(err)
	}
	logf("%s: ended for good", second.Places().Dir)
	for _, m := range []Machine{first, third} {
		waitSh(t, m, "the API to go on", configMap("after-$(hostname)", "")+" && "+adminKubectl+"get --raw=/readyz")
	}

	again := boot(t, cp(2))
	waitReady(t, again)
	if got := members(t, again, "cp2"); !sameSet(got, three) {
		t.Errorf("with cp2 replaced etcd's members are %q, want %q", got, three)
	}
	if got := strings.Fields(sh(t, again, adminKubectl+"get configmaps --namespace=default --output=custom-columns=:.metadata.name")); !strings.Contains(strings.Join(got, " "), "after-cp1 after-cp3") {
		t.Errorf("the new control plane knows the ConfigMaps %q, want after-cp1 and after-cp3", got)
	}
	waitPods(t, again, corednsOf(t, baked(t, again)), 3)
}
