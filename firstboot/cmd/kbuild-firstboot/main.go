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

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1   // it went wrong, or is not so yet (status); what is said tells why
	exitUsage   = 2   // the command line is wrong: nothing was done
	exitRefused = 4   // it went wrong, and trying again does not help
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

// usageError is a mistake of the caller's.
type usageError struct{ error }

// Execute runs the command line args (without the program's name) and returns
// the exit code. Results go to stdout, what happens and errors to stderr.
func Execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var u usageError
	if _, ok := errors.AsType[converge.UnknownStep](err); ok {
		err = usageError{err}
	}
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "kbuild-firstboot: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
		return exitUsage
	case errors.Is(err, errNotSo):
		return exitFailed
	}
	if e, ok := errors.AsType[ended](err); ok {
		return int(e)
	}
	// What a step ended with was told when it did.
	if _, told := errors.AsType[*converge.StepError](err); !told {
		fmt.Fprintf(stderr, "kbuild-firstboot: %v\n", err)
	}
	if _, refused := errors.AsType[outcome.Refused](err); refused {
		return exitRefused
	}
	if s, ok := errors.AsType[stopped](context.Cause(ctx)); ok {
		return exitStopped + int(s.Signal)
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	var dir string
	root := &cobra.Command{
		Use:   "kbuild-firstboot",
		Short: "Make this machine the Kubernetes node that its user-data asks for",
		Long: `Make this machine the Kubernetes node that its user-data asks for.

systemd runs "kbuild-firstboot run" on every boot (kbuild-firstboot.service);
the other commands are for looking, and for hands.

Exit codes: 0 all is well; 1 something failed or is not so yet; 2 the command
line is wrong; 4 something failed that trying again does not mend; 130 and 143 stopped by a signal.`,
		Example: `  kbuild-firstboot status
  kbuild-firstboot plan
  kbuild-firstboot run --until control-plane`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&dir, "root", "/", "root `directory` of the machine")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(&dir), phaseCommand(&dir), planCommand(&dir), statusCommand(&dir), upgradeCommand(&dir), resetCommand(&dir), forgetCommand(&dir), uncordonCommand(&dir), hostRunCommand(&dir), versionCommand(&dir))
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
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
