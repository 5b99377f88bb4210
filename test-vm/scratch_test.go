package testvm

import (
	"errors"
	"os"
	"os/exec"
	"testing"
)

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	p := procOf(cmd.Process.Pid)
	if !p.alive() {
		t.Fatal("a running process is not alive")
	}
	other := process{p.PID, p.Start + "1"}
	if other.alive() {
		t.Error("another process of the same id is taken for ours")
	}
	if err := other.kill(); err != nil || !p.alive() {
		t.Errorf("another's process was killed: %v", err)
	}
	if err := p.kill(); err != nil || p.alive() {
		t.Errorf("kill: %v, alive: %v", err, p.alive())
	}
}

// A machine whose maker is gone is ended and removed; one that was kept, or
// whose maker lives, is not.
func TestClean(t *testing.T) {
	t.Setenv("KBUILD_TEST_DIR", t.TempDir())
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := process{gone.Process.Pid, "1"}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	go sleep.Wait()
	make := func(name string, r record) *scratch {
		s, err := newScratch(Options{Name: name, Log: t.Logf})
		if err != nil {
			t.Fatal(err)
		}
		s.rec = r
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	ours := make("ours", record{Owner: procOf(os.Getpid())})
	kept := make("kept", record{Owner: dead, Keep: true})
	left := make("left", record{Owner: dead, Machine: procOf(sleep.Process.Pid)})
	exists := func(s *scratch) bool { _, err := os.Stat(s.dir); return !errors.Is(err, os.ErrNotExist) }

	if err := Clean(false, t.Logf); err != nil {
		t.Fatal(err)
	}
	if !exists(ours) || !exists(kept) || exists(left) {
		t.Errorf("ours %v, kept %v, left %v; want true, true, false", exists(ours), exists(kept), exists(left))
	}
	if left.rec.Machine.alive() {
		t.Error("a leftover's process still runs")
	}
	if err := Clean(true, t.Logf); err != nil || exists(kept) {
		t.Errorf("kept machines are not removed when asked: %v", err)
	}
}
