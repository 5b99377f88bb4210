// Command kbuild turns a Kubernetes version into an immutable node image.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // the command line or a file that it names is wrong: nothing was done
	exitInterrupted = 130 // as shells report Ctrl-C
)

// usageError is a mistake of the caller's.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usage marks err, if it is one, as a mistake of the caller's.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Execute runs the command line args (without the program's name) and returns
// the exit code. Results go to stdout, progress and errors to stderr.
func Execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var u usageError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "kbuild: interrupted")
		return exitInterrupted
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "kbuild: %v\nSee '%s --help'.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "kbuild: %v\n", err)
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "kbuild",
		Short:         "Build immutable Kubernetes node images",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(imageCommand(), pushCommand(), planCommand(), imagesCommand(), clusterCommand(), tokenCommand(), treeCommand(), upgradeCommand(), resetCommand())
	return root
}

// noArgs refuses arguments, which on a command with subcommands are unknown
// subcommands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("unknown argument %q for %s", args[0], cmd.CommandPath()))
	}
	return nil
}
