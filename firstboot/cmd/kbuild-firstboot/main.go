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

	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // a step failed, or a step does not hold (status, plan)
	exitUsage   = 2 // the command line is wrong: nothing was done
	exitStopped = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(Execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
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
	if _, ok := errors.AsType[firstboot.UnknownStep](err); ok {
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
	case ctx.Err() != nil:
		fmt.Fprintf(stderr, "kbuild-firstboot: %v\n", err)
		return exitStopped
	}
	fmt.Fprintf(stderr, "kbuild-firstboot: cannot finish %v\n", err)
	return exitFailed
}

func rootCommand() *cobra.Command {
	var dir string
	root := &cobra.Command{
		Use:           "kbuild-firstboot",
		Short:         "Make this machine the Kubernetes node that its user-data asks for",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&dir, "root", "/", "root directory of the machine")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(&dir), phaseCommand(&dir), planCommand(&dir), statusCommand(&dir), versionCommand(&dir))
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// open is the machine at dir and what its image says of itself.
func open(dir string, log *slog.Logger) (*firstboot.Run, error) {
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
	return &firstboot.Run{Host: h, Baked: baked}, nil
}
