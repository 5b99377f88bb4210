package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// A program that is ended because it took too long has found nothing: the check
// says so, and does not ask for another image.
func TestLate(t *testing.T) {
	b := newBench(t, "v1.19.12", "")
	b.Host.Run = func(ctx context.Context, name string, _ ...string) ([]byte, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("cannot run %s: %w", name, errors.Join(ctx.Err(), errors.New("signal: terminated")))
	}
	synctest.Test(t, func(t *testing.T) {
		f := Run(t.Context(), []Check{{"KubeletVersion", machine{b.Machine}.kubelet}}, nil)
		if len(f.Errors) != 1 || !f.Errors[0].Late {
			t.Fatalf("found %v", f)
		}
		said := f.Err().Error()
		for _, want := range []string{"not all checks of this machine have been answered yet", "KubeletVersion: /usr/bin/kubelet --version has not answered within 30s", "asked again"} {
			if !strings.Contains(said, want) {
				t.Errorf("it lacks %q:\n%s", want, said)
			}
		}
		for _, wrong := range []string{"image", "terminated", "cannot become"} {
			if strings.Contains(said, wrong) {
				t.Errorf("it says %q:\n%s", wrong, said)
			}
		}
	})
	// What fails in time is a finding.
	b.Host.Run = func(context.Context, string, ...string) ([]byte, error) { return nil, errors.New("exec format error") }
	if f := Run(t.Context(), []Check{{"KubeletVersion", machine{b.Machine}.kubelet}}, nil); len(f.Errors) != 1 || f.Errors[0].Late || !strings.Contains(f.Err().Error(), "build the image anew") {
		t.Errorf("found %v", f)
	}
}

// A runtime that is on its way is waited for, and one that never listens is
// named with its remedy.
func TestListens(t *testing.T) {
	dir := t.TempDir()
	if err := listens(t.Context(), dir+"/none", 0); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("nobody listens: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- listens(t.Context(), dir+"/s", timeout) }()
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
