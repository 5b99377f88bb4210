package testvm

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// monitorOf plays QEMU's monitor for a process that stands for the machine. As
// QEMU does, it serves one client at a time: the next one's connection is made
// by the kernel, and nobody reads from it until the first hangs up. Told to
// power down, it ends the process.
func monitorOf(t *testing.T, path string, machine *exec.Cmd) (asked *atomic.Bool) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked = new(atomic.Bool)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewScanner(c); in.Scan(); {
				var m struct{ Execute string }
				json.Unmarshal(in.Bytes(), &m)
				c.Write([]byte("{\"return\": {}}\n"))
				if m.Execute == "system_powerdown" {
					asked.Store(true)
					machine.Process.Kill()
				}
			}
			c.Close()
		}
	}()
	return asked
}

// A machine that one process has started and waits for can be stopped by
// another one.
func TestStopAttached(t *testing.T) {
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	s := &scratch{dir: t.TempDir()}
	starter := &virtual{s: s, o: Options{Keep: true, Log: t.Logf}}
	starter.client.Path = s.path("share", "checker.sock") // nobody listens there: its checker does not answer yet
	starter.watch(sleep)
	t.Cleanup(func() { starter.PowerCut() })
	s.rec = record{Name: "m", Machine: procOf(sleep.Process.Pid), Keep: true}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	asked := monitorOf(t, s.path("qmp.sock"), sleep)
	if err := starter.reach(t.Context()); err != nil {
		t.Fatal(err)
	}

	other, err := Attach(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := other.Stop(ctx); err != nil {
		t.Errorf("cannot stop it: %v", err)
	}
	if !asked.Load() {
		t.Error("the machine was not asked to power down")
	}
	if ok, why := starter.Running(); ok || !strings.Contains(why.Error(), "ended with signal: killed") {
		t.Errorf("the process that started it is told %v, %v", ok, why)
	}
}
