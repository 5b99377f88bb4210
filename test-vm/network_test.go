package testvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScenarioNetwork lets two machines without user-data talk to each other,
// over a balancer too, before and after the power of one was cut.
func TestScenarioNetwork(t *testing.T) {
	n := wire(t)
	machines := map[int]Machine{}
	for k := 11; k <= 12; k++ {
		machines[k] = boot(t, on(n, k, fmt.Sprint("m", k), ""))
	}
	for k, m := range machines {
		greet(t, m, n.Address(k))
	}
	ask := func(k int, addr string) string {
		return strings.TrimSpace(sh(t, machines[k], "socat -t5 - TCP:"+addr+":7777,connect-timeout=5 </dev/null"))
	}
	if a, b := ask(11, n.Address(12)), ask(12, n.Address(11)); a != "m12" || b != "m11" {
		t.Errorf("the machines answer each other %q and %q, want m12 and m11", a, b)
	}
	if e := sh(t, machines[11], "ip route show default"); e != "" {
		t.Errorf("a machine of a network has a default route: %s", e)
	}
	var b *Balancer
	if Lane(*lane) == Container {
		var err error
		if b, err = n.NewBalancer(7777, n.Address(11)+":7777", n.Address(12)+":7777"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		if got := []string{ask(11, n.Address(1)), ask(11, n.Address(1))}; !sameSet(got, []string{"m11", "m12"}) {
			t.Errorf("over the balancer %q answer, want m11 and m12", got)
		}
	}
	if err := machines[12].PowerCut(); err != nil {
		t.Fatal(err)
	}
	if b != nil {
		if got := ask(11, n.Address(1)) + ask(11, n.Address(1)); got != "m11m11" {
			t.Errorf("with m12 gone %q answer over the balancer, want m11 twice", got)
		}
	}
	if err := machines[12].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	greet(t, machines[12], n.Address(12))
	if got := ask(11, n.Address(12)); got != "m12" {
		t.Errorf("after the power cut %q answers, want m12", got)
	}
}

// greet waits until the machine has its address, and lets it say its name to
// whoever connects to port 7777.
func greet(t *testing.T, m Machine, address string) {
	t.Helper()
	waitSh(t, m, "its address", "ip -o addr show | grep -F ' "+address+"/'")
	sh(t, m, "systemd-run --quiet --unit=greet socat TCP-LISTEN:7777,fork,reuseaddr EXEC:hostname")
	waitSh(t, m, "its greeting", "socat -t5 - TCP:127.0.0.1:7777 </dev/null")
}

// What a killed test left of a network goes as its machines do.
func TestCleanNetwork(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	t.Setenv("KBUILD_TEST_DIR", t.TempDir())
	n, err := NewNetwork(Container, false, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	ns := filepath.Join("/run/netns", n.s.rec.Netns)
	if _, err := os.Stat(ns); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	n.s.rec.Owner = process{gone.Process.Pid, "1"}
	if err := errors.Join(n.s.save(), Clean(false, t.Logf)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ns); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace %s still exists: %v", ns, err)
	}
	if _, err := os.Stat(n.s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory %s still exists: %v", n.s.dir, err)
	}
}

// A VM's plug is in the bridge for as long as somebody holds it.
func TestTap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	t.Setenv("KBUILD_TEST_DIR", t.TempDir())
	n, err := NewNetwork(Container, false, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	plugs := func() string {
		t.Helper()
		out, err := exec.Command("ip", "-n", n.s.rec.Netns, "-o", "link", "show", "master", bridge).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	f, err := n.tap("m1")
	if err != nil {
		t.Fatal(err)
	}
	if got := plugs(); !strings.Contains(got, " tap-m1:") {
		t.Errorf("the bridge has %q", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if plugs() == "" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the bridge has %q still", plugs())
}

// A machine of another lane, or without an address, cannot hang on a network.
func TestOnNetwork(t *testing.T) {
	n := &Network{lane: VM}
	for _, o := range []Options{{Network: n, Address: "10.77.0.2"}, {Network: &Network{lane: Container}}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if m, err := New(ctx, Container, o); err == nil || !strings.Contains(err.Error(), "network") {
			t.Errorf("New(%+v) = %v, %v; want an error about the network", o, m, err)
		}
	}
}
