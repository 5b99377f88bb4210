package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

const outputLimit = 256 << 10

// execute runs a command in the machine. A command that fails is a result; one
// that cannot be started is an error.
func execute(ctx context.Context, a guest.ExecArgs) (guest.Exec, error) {
	if len(a.Argv) == 0 {
		return guest.Exec{}, errors.New("no command given")
	}
	limit := time.Duration(a.Seconds) * time.Second
	if limit == 0 {
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.Argv[0], a.Argv[1:]...)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &out, &msg, strings.NewReader(a.Stdin)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return guest.Exec{}, err
	}
	return guest.Exec{Code: cmd.ProcessState.ExitCode(), Stdout: tail(out.Bytes()), Stderr: tail(msg.Bytes())}, ctx.Err()
}

func tail(b []byte) string {
	if len(b) > outputLimit {
		b = b[len(b)-outputLimit:]
	}
	return string(b)
}
