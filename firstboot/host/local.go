package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Local is the running machine, seen through root: "/" for the machine itself,
// or a directory for a test or a tree that lies elsewhere. Close its Root when
// it is no longer needed.
func Local(root string, log *slog.Logger) (*Host, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("cannot open the root directory: %w", err)
	}
	pid1 := new(bus)
	return &Host{
		Root:        r,
		Run:         run,
		Systemd:     pid1.systemd(),
		Now:         time.Now,
		SetClock:    setClock,
		Hostname:    os.Hostname,
		SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) },
		Log:         log,
		Probe:       LocalProbe(),
		Env:         os.Environ(),
		Proxy:       http.ProxyFromEnvironment,
		HTTP:        httpClient(),
		GuestInfo:   guestInfo,

		FactoryReset:   requestFactoryReset,
		Virtualization: pid1.virtualization,
		Trial:          func() bool { return onTrial(r) },
	}, nil
}

// CommandError is a command that ended badly.
type CommandError struct {
	Args   []string
	Output []byte // what it printed, standard output first
	Err    error
}

func (e *CommandError) Error() string {
	out := strings.TrimSpace(string(e.Output))
	if out != "" {
		out = ": " + out
	}
	return fmt.Sprintf("command %s: %v%s", strings.Join(e.Args, " "), e.Err, out)
}

func (e *CommandError) Unwrap() error { return e.Err }

// run runs a command to its end. When ctx ends the command gets SIGTERM, and
// SIGKILL five seconds later.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return nil, &CommandError{append([]string{name}, args...), append(stdout.Bytes(), stderr.Bytes()...), err}
	}
	return stdout.Bytes(), nil
}

func setClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}
