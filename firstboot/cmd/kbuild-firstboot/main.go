// Command kbuild-firstboot makes a machine the Kubernetes node that its
// user-data asks for. systemd runs it on every boot.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// Exit codes beyond those of package cli. ExitFailed is also the answer that
// not all is done yet (status).
const (
	exitRefused = 4   // it failed, and trying again does not help
	exitStopped = 128 // and the signal's number
)

func main() {
	ctx, stop := stopOnSignal(context.Background())
	defer stop()
	os.Exit(Execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// stopped is the cause of a context that a signal ended.
type stopped struct{ syscall.Signal }

func (s stopped) Error() string { return "signal: " + s.String() }

// stopOnSignal ends the context at the first SIGINT or SIGTERM; a second one
// ends the process.
func stopOnSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		s, ok := <-c
		signal.Stop(c)
		if sig, is := s.(syscall.Signal); ok && is {
			cancel(stopped{sig})
		}
	}()
	return ctx, func() { signal.Stop(c); cancel(nil) }
}

// Execute runs the command line args (without the program's name) and returns
// the exit code. Results go to stdout, what happens and errors to stderr.
func Execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return cli.ExitOK
	}
	if e, ok := errors.AsType[ended](err); ok {
		return int(e)
	}
	if _, ok := errors.AsType[converge.UnknownStep](err); ok {
		err = cli.Usage(err)
	}
	// What a step ended with was reported when it did.
	if _, reported := errors.AsType[*converge.StepError](err); !reported && !errors.Is(err, errNotSo) {
		if cli.Report(stderr, cmd, err) == cli.ExitUsage {
			return cli.ExitUsage
		}
	}
	if _, refused := errors.AsType[outcome.Refused](err); refused {
		return exitRefused
	}
	if s, ok := errors.AsType[stopped](context.Cause(ctx)); ok {
		return exitStopped + int(s.Signal)
	}
	return cli.ExitFailed
}

func rootCommand() *cobra.Command {
	var dir string
	root := cli.Root(&cobra.Command{
		Use:   "kbuild-firstboot",
		Short: "Make this machine the Kubernetes node that its user-data asks for",
		Long: `Make this machine the Kubernetes node that its user-data asks for.

systemd runs "kbuild-firstboot run" on every boot (kbuild-firstboot.service);
the other commands are for inspection and manual repair.

Exit codes: 0 done; 1 failed, or not done yet (status); 2 the command line is
wrong, and nothing was done; 4 failed, and trying again does not help; 130 and
143 stopped by a signal.`,
		Example: `  kbuild-firstboot status
  kbuild-firstboot plan
  kbuild-firstboot run --until control-plane`,
	})
	root.PersistentFlags().StringVar(&dir, "root", "/", "root `directory` of the machine")
	root.AddCommand(runCommand(&dir), phaseCommand(&dir), planCommand(&dir), statusCommand(&dir), upgradeCommand(&dir), resetCommand(&dir), forgetCommand(&dir), uncordonCommand(&dir), hostRunCommand(&dir), versionCommand(&dir))
	return root
}

// open is the machine at dir and what its image says of itself.
func open(dir string, log *slog.Logger) (*node.Machine, error) {
	h, err := host.Local(dir, log)
	if err != nil {
		return nil, err
	}
	b, err := h.ReadFile(images.BakedFile)
	if err != nil {
		h.Root.Close()
		return nil, fmt.Errorf("this is no kbuild image: %w", err)
	}
	baked, err := images.ReadBaked(b)
	if err != nil {
		h.Root.Close()
		return nil, err
	}
	return &node.Machine{Host: h, Baked: baked}, nil
}
