package testvm

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// reset resets a machine by a command in it, and returns when it boots again.
// A VM reboots by itself; a container has to be started.
func reset(t *testing.T, m Machine, command ...string) {
	t.Helper()
	sh(t, m, "date > /var/lib/kubelet/of-the-old-machine; date > /var/lib/containerd/of-the-old-machine; sync")
	id := sh(t, m, "cat /proc/sys/kernel/random/boot_id")
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	// The machine goes down before it could say how it went.
	sh(t, m, "systemd-run --quiet --collect --unit=reset "+strings.Join(command, " "))
	logf("%s: %s", m.Places().Dir, strings.Join(command, " "))
	backAgain(t, ctx, m, id)
}

// backAgain waits until a machine that was reset boots as a new one.
func backAgain(t *testing.T, ctx context.Context, m Machine, bootID string) {
	t.Helper()
	if c, ok := m.(*container); ok {
		if err := c.rebooted(ctx); err != nil {
			t.Fatal(err)
		}
	}
	waitSh(t, m, "the boot after the reset", "test \"$(cat /proc/sys/kernel/random/boot_id)\" != "+strings.TrimSpace(bootID)+
		" -o \"$(systemd-detect-virt)\" = systemd-nspawn")
	if out := sh(t, m, "ls /var/lib/kubelet/of-the-old-machine /var/lib/containerd/of-the-old-machine /var/lib/kbuild/reset.json 2>/dev/null || true"); out != "" {
		t.Errorf("what the old machine wrote is still there: %s", out)
	}
}

// refusedReset holds that a reset is refused in the given words, and that the
// node goes on.
func refusedReset(t *testing.T, m Machine, words string) {
	t.Helper()
	e := ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"kbuild-firstboot", "reset", "--yes"}})
	if e.Code == 0 || !strings.Contains(e.Stdout+e.Stderr, words) || !strings.Contains(e.Stdout+e.Stderr, "--force") {
		t.Errorf("reset says (%d) %s%s, want %q and --force", e.Code, e.Stdout, e.Stderr, words)
	}
	if out := sh(t, m, "systemctl is-active kubelet.service; ls /var/lib/kbuild"); strings.Contains(out, "reset.json") || !strings.HasPrefix(out, "active") {
		t.Errorf("after a refused reset: %s", out)
	}
}

// TestScenarioReset resets a worker and one control plane of three, which come
// back as new machines by the same names; a reset that would break etcd's quorum
// is refused. In the VM lane the two are VMs among containers.
func TestScenarioReset(t *testing.T) {
	n := wireOf(t, Container)
	id := newIdentity(t)
	endpoint := balancer(t, n)
	cp := controlPlanes(t, n, id, endpoint)
	contained := func(o Options) Machine { return bootWith(t, Container, options(t, o)) }
	resettable := func(o Options) Machine {
		if Lane(*lane) == VM {
			o.UserData = amongContainers(t, o.UserData)
		}
		return boot(t, o)
	}
	cp1, cp3 := contained(cp(1)), contained(cp(3))
	waitReady(t, cp1)
	waitReady(t, cp3)
	// One after another: two emulated machines at once starve the others' etcd.
	w1 := resettable(on(n, 14, "w1", metadata(t, n, 14, "worker", "w1", joinFields(endpoint, pin(t, id.cert))...)))
	waitReady(t, w1)
	reset(t, w1, "kbuild-firstboot", "reset", "--yes")
	waitReady(t, w1)
	if err := w1.PowerCut(); err != nil {
		t.Fatal(err)
	}

	cp2 := resettable(cp(2))
	waitReady(t, cp2)
	// A node is Ready before its own API server is healthy, which it resets itself
	// by.
	waitSh(t, cp2, "the end of kbuild-firstboot", "systemctl is-active --quiet kbuild-firstboot.service")
	sh(t, cp1, adminKubectl+"create configmap before --namespace=default")
	three := []string{"cp1=started", "cp2=started", "cp3=started"}

	refusedReset(t, cp1, "role: init")

	uid := sh(t, cp1, adminKubectl+"get node cp2 --output=jsonpath={.metadata.uid}")
	reset(t, cp2, "kbuild-firstboot", "reset", "--yes")
	waitReady(t, cp2)
	// A member tells what it has heard so far: the promotion may be news to it.
	var got []string
	for range 15 {
		if got = members(t, cp1, "cp1"); sameSet(got, three) {
			break
		}
		time.Sleep(2 * time.Second)
	}
	if !sameSet(got, three) {
		t.Errorf("with cp2 back etcd's members are %q, want %q", got, three)
	}
	if now := sh(t, cp2, adminKubectl+"get node cp2 --output=jsonpath={.metadata.uid}"); now == uid {
		t.Error("cp2's Node is the old one")
	}
	sh(t, cp2, adminKubectl+"get configmap before --namespace=default")

	if err := cp3.PowerCut(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	refusedReset(t, cp2, "quorum")

	// Nobody brings cp3 back. The rest is a cluster of two.
	waitSh(t, cp1, "cp3 to be missed", adminKubectl+"wait --for=condition=Ready=Unknown --timeout=5s node cp3")
	o := newOperator(t, n, cp1)
	if _, code := o.kbuild("reset", "cp3", "--yes"); code == 0 {
		t.Error("a node whose machine does not answer was reset without --force")
	}
	if _, code := o.kbuild("reset", "cp3", "--force", "--yes"); code != 0 {
		t.Errorf("reset --force of a machine that is gone: exit code %d", code)
	}
	if got, want := members(t, cp1, "cp1"), []string{"cp1=started", "cp2=started"}; !sameSet(got, want) {
		t.Errorf("without cp3 etcd's members are %q, want %q", got, want)
	}
	if out := sh(t, cp1, adminKubectl+"get nodes --output=name"); strings.Contains(out, "cp3") {
		t.Errorf("cp3 is still there: %s", out)
	}
	if Lane(*lane) == VM {
		return // w1 is off
	}
	if err := w1.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitReady(t, w1)
	boot := sh(t, w1, "cat /proc/sys/kernel/random/boot_id")
	if _, code := o.kbuild("reset", "w1", "--yes"); code != 0 {
		t.Errorf("the operator's reset: exit code %d", code)
	}
	backAgain(t, t.Context(), w1, boot)
	waitReady(t, w1)
}

// TestScenarioResetSingle resets a cluster's only machine, which takes --force:
// it makes a new cluster. The second reset is cut again and again.
func TestScenarioResetSingle(t *testing.T) {
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, ""))})
	waitReady(t, m)
	const uid = adminKubectl + "get namespace kube-system --output=jsonpath={.metadata.uid}"
	first := sh(t, m, uid)
	refusedReset(t, m, "last control plane")
	reset(t, m, "kbuild-firstboot", "reset", "--force")
	waitReady(t, m)
	if second := sh(t, m, uid); second == first {
		t.Error("it is the old cluster")
	}
	if Lane(*lane) != Container {
		return
	}
	first = sh(t, m, uid)
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	// It takes a second or two.
	sh(t, m, "systemd-run --collect kbuild-firstboot reset --force && until test -e /var/lib/kbuild/reset.json; do sleep 0.02; done")
	if err := errors.Join(m.PowerCut(), m.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	logf("%s: power cut during a reset", m.Places().Dir)
	if c, ok := m.(*container); ok {
		if err := c.rebooted(ctx); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, m)
	if second := sh(t, m, uid); second == first {
		t.Error("after a cut reset it is the old cluster")
	}
}
