package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
)

// A node without user-data waits, says so, lets nobody else work meanwhile,
// and stops when it is told to.
func TestStopped(t *testing.T) {
	root, _ := machine(t)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("JOURNAL_STREAM", "")
	ctx, cancel := context.WithCancelCause(t.Context())
	out, errs := new(bytes.Buffer), new(bytes.Buffer)
	code := make(chan int)
	go func() { code <- Execute(ctx, []string{"run", "--root", root}, out, errs) }()
	var s converge.Status
	for end := time.Now().Add(30 * time.Second); s.Step != "metadata" || s.Why == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no wait in sight: %+v", s)
		}
		h, err := host.Local(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err = converge.ReadStatus(h)
		h.Root.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(s.Why, "user-data") {
		t.Errorf("it waits for %q", s.Why)
	}
	if c, _, errs := execute(t, root, "run"); c != cli.ExitFailed || !strings.Contains(errs, "another run is under way") {
		t.Errorf("a second run beside the first: exit code %d, %q", c, errs)
	}
	cancel(stopped{syscall.SIGTERM})
	if c := <-code; c != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want 143: %s", c, errs)
	}
	if n := strings.Count(errs.String(), "signal: terminated"); n > 1 {
		t.Errorf("it says %d times that it was stopped:\n%s", n, errs)
	}
	if c, out, _ := execute(t, root, "status"); c != cli.ExitFailed || !strings.Contains(out, "signal: terminated") {
		t.Errorf("status: exit code %d, %q", c, out)
	}
	if c, _, errs := execute(t, root, "run", "--until", "clock"); c != cli.ExitOK || errs != "kbuild-firstboot: clock: already so\n" {
		t.Errorf("a run after it: exit code %d, %q", c, errs)
	}
}

func TestOutputFails(t *testing.T) {
	root, _ := machine(t)
	broken := errors.New("no space left on device")
	var errs bytes.Buffer
	code := Execute(t.Context(), []string{"version", "--root", root}, failing{broken}, &errs)
	if code != cli.ExitFailed || !strings.Contains(errs.String(), broken.Error()) {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// What the same configuration cannot mend ends with an exit code of its own, so
// that systemd does not try again (RestartPreventExitStatus=).
func TestFinal(t *testing.T) {
	root, _ := machine(t)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("JOURNAL_STREAM", "")
	for name, text := range map[string]string{
		"run/credentials/@system/kbuild.userdata": "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: worker\naddress: 192.0.2.1\n" +
			"discoveryFile: /etc/kubernetes/discovery.conf\ntoken: abcdef.0123456789abcdef\n",
		"etc/kubernetes/discovery.conf": "apiVersion: v1\nkind: Config\n",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	code, _, errs := execute(t, root, "phase", "discovery")
	if code != exitRefused || !strings.Contains(errs, "names no cluster") || !strings.Contains(errs, "put a kubeconfig there") {
		t.Errorf("exit code %d, want %d, what is wrong, and what to do:\n%s", code, exitRefused, errs)
	}
	unit, err := os.ReadFile("../../../templates/root/usr/lib/systemd/system/kbuild-firstboot.service")
	if want := fmt.Sprintf("\nRestartPreventExitStatus=%d\n", exitRefused); err != nil || !strings.Contains(string(unit), want) {
		t.Errorf("the unit does not say %q: %v", want, err)
	}
}
