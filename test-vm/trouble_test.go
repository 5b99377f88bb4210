package testvm

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// TestScenarioPowerCut cuts the power of a fresh machine at random instants of
// its first boots: whenever it was, the next boot ends with a Ready node. The
// seed is printed; SEED repeats a run.
func TestScenarioPowerCut(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		seed = n
	}
	random := rand.New(rand.NewPCG(seed, 0))
	window := 25 * time.Second // about what a first boot takes
	if Lane(*lane) == VM {
		window = 4 * time.Minute
	}
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, ""))})
	logf("%s: SEED=%d", m.Places().Dir, seed)
	for i := range 4 {
		after := time.Duration(random.Int64N(int64(window)))
		time.Sleep(after)
		var r guest.Ready
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		m.Ask(ctx, guest.CmdReady, nil, &r) // it may well not answer yet
		cancel()
		logf("%s: power cut %d, %s after the start: %s", m.Places().Dir, i+1, after.Round(time.Millisecond), r.Firstboot)
		if err := m.PowerCut(); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, m)
	b := baked(t, m)
	waitPod(t, m, corednsOf(t, b))
	checkImages(t, m, b)
}

// TestScenarioKill kills kbuild-firstboot itself, again and again, and lets it
// start again without a reboot.
func TestScenarioKill(t *testing.T) {
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, ""))})
	for i := range 6 {
		time.Sleep(time.Duration(i+1) * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var e guest.Exec
		err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"sh", "-c",
			"systemctl kill --signal=KILL kbuild-firstboot.service; systemctl reset-failed kbuild-firstboot.service; systemctl start --no-block kbuild-firstboot.service"}}, &e)
		cancel()
		var failed guest.Failed
		if errors.As(err, &failed) {
			t.Fatal(err)
		}
		logf("%s: kill %d: %v %s", m.Places().Dir, i+1, err, strings.TrimSpace(e.Stderr))
	}
	waitReady(t, m)
}

// TestScenarioBadUserData gives a node user-data with a mistake: it says so,
// with the line, waits, and has begun nothing; with the mistake mended it
// becomes Ready.
func TestScenarioBadUserData(t *testing.T) {
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, "  nodeNmae: x\n"))})
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	err := Wait(ctx, m, logf, "a complaint", func(ctx context.Context) (string, error) {
		var e guest.Exec
		if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"kbuild-firstboot", "status"}}, &e); err != nil {
			return "", err
		}
		if said := e.Stdout + e.Stderr; !strings.Contains(said, "nodeNmae") || !strings.Contains(said, "line 5") {
			return "status does not name nodeNmae and line 5: " + said, nil
		}
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ConsoleTail(m, 1000), "nodeNmae") {
		t.Error("the console does not name the mistake")
	}
	e := ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"sh", "-c", "ls -A /etc/kubernetes /var/lib/etcd; systemctl is-active kubelet.service"}})
	if strings.Contains(e.Stdout, "pki") || strings.Contains(e.Stdout, "member") || strings.Contains(e.Stdout, "\nactive") {
		t.Errorf("the node has half-started:\n%s", e.Stdout)
	}
	if err := m.SetUserData(userData(t, initDoc(t, ""))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Stop(ctx), m.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	waitReady(t, m)
}
