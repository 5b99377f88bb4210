package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// toolchain names the Go toolchain that compiles everything: the one that
// kbuild itself was compiled with. The go command fetches it where the
// installed one is another.
func toolchain() string {
	v, _, _ := strings.Cut(runtime.Version(), " ")
	if regexp.MustCompile(`^go1(\.\d+)+(rc\d+)?$`).MatchString(v) {
		return v
	}
	return "local"
}

// packageLine is what go build -v prints of a package that it compiles.
var packageLine = regexp.MustCompile(`^[a-z0-9.-]+(/[\w.~-]+)*$`)

// goEnv is the environment of a go command: the user's, without the settings
// that would change what is compiled.
func goEnv(arch string, set ...string) []string {
	fixed := append([]string{
		"GOTOOLCHAIN=" + toolchain(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GO111MODULE=on",
		"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0", "GOEXPERIMENT=", "GOFIPS140=off",
		"GOAMD64=v1", "GOARM64=v8.0", "GODEBUG=",
	}, set...)
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		own := false
		for _, f := range fixed {
			own = own || strings.HasPrefix(f, name+"=")
		}
		if !own {
			env = append(env, e)
		}
	}
	return append(env, fixed...)
}

// commandError is a command that failed, with the last lines that it wrote.
type commandError struct {
	Dir        string
	Args       []string
	Output     string
	Transcript string // file with everything that it wrote; may be empty
	Err        error
}

func (e *commandError) Error() string {
	s := fmt.Sprintf("cannot run %q in %s: %v\n%s", strings.Join(e.Args, " "), e.Dir, e.Err, lastLines(e.Output, 25))
	if e.Transcript != "" {
		s += "\neverything that it printed: " + e.Transcript
	}
	return s
}

func (e *commandError) Unwrap() error { return e.Err }

// command is how a command is run.
type command struct {
	dir        string
	env        []string
	transcript *os.File  // gets everything that it writes; may be nil
	stderr     io.Writer // gets its standard error, too; may be nil
}

// runCommand is command.run without a transcript.
func runCommand(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	return command{dir: dir, env: env}.run(ctx, args...)
}

// run runs a command and returns its standard output, also of one that failed.
// When ctx ends, the command and everything that it started are killed.
func (c command) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	outs, errs := []io.Writer{&stdout}, []io.Writer{&stderr}
	if c.transcript != nil {
		outs, errs = append(outs, c.transcript), append(errs, c.transcript)
	}
	if c.stderr != nil {
		errs = append(errs, c.stderr)
	}
	cmd.Dir, cmd.Env = c.dir, append(c.env, "PWD="+c.dir)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(outs...), io.MultiWriter(errs...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cannot finish %q: %w", strings.Join(args, " "), context.Cause(ctx))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("cannot compile: %w: install Go (%s or newer) or use another --source", err, runtime.Version())
	}
	if err != nil {
		e := &commandError{Dir: c.dir, Args: args, Output: stderr.String() + stdout.String(), Err: err}
		if c.transcript != nil {
			e.Transcript = c.transcript.Name()
		}
		return stdout.Bytes(), e
	}
	return stdout.Bytes(), nil
}

// module is what the go command says of a downloaded module.
type module struct {
	Path, Version, Dir, Sum, GoModSum, Error string
	GoMod                                    string // its go.mod, in the module cache
}

// download brings a module into Go's module cache, checked against the
// checksum database, and against sum unless that is empty.
func download(ctx context.Context, path, version, sum string) (module, error) {
	// Outside of any module, so that no go.mod has an effect.
	dir, err := os.MkdirTemp("", "kbuild-download-")
	if err != nil {
		return module{}, err
	}
	defer os.RemoveAll(dir)
	out, err := runCommand(ctx, dir, goEnv(runtime.GOARCH), "go", "mod", "download", "-json", path+"@"+version)
	var m module
	bad := json.Unmarshal(out, &m)
	switch {
	case m.Error != "" && ctx.Err() == nil:
		return m, fmt.Errorf("cannot download module %s@%s: %s: check that the module proxy can be reached (go env GOPROXY), or use a directory of components, which needs none (--source dir:PATH)", path, version, m.Error)
	case err != nil:
		return m, fmt.Errorf("cannot download module %s@%s: %w", path, version, err)
	case bad != nil:
		return m, fmt.Errorf("cannot read what go mod download says of %s@%s: %w", path, version, bad)
	}
	if sum != "" && m.Sum != sum {
		return m, fmt.Errorf("module %s@%s has sum %s, the lock says %s: empty the module cache (go clean -modcache); if the error stays, do not trust the module proxy", path, version, m.Sum, sum)
	}
	return m, nil
}

// lastLines are the last n lines of what a command printed that say something:
// not that a module was downloaded, nor which package was compiled.
func lastLines(s string, n int) string {
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(s), "\n"), func(l string) bool {
		return strings.HasPrefix(l, "go: downloading ") || packageLine.MatchString(l)
	})
	if len(lines) > n {
		lines = append([]string{"…"}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}
