// Package cli is what kbuild's programs have in common on the command line:
// which errors are the caller's mistakes and how they are reported, the -o
// flag, the question before something is lost, and what `version` prints.
//
// A mistake in the command line, or in a file that it names, ends with exit
// code 2 before anything was done, and says where help is. Results go to
// standard output, everything else to standard error. The programs' other exit
// codes are their own.
package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes that all programs share.
const (
	ExitOK     = 0
	ExitFailed = 1 // the error says why
	ExitUsage  = 2 // the command line or a file that it names is wrong: nothing was done
)

// usageError is a mistake of the caller's.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err, if it is one, as a mistake of the caller's.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Usagef is Usage of a new error, in fmt's form.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Root makes cmd the root of a program: its errors are reported by Report, and
// wrong flags are mistakes of the caller's.
func Root(cmd *cobra.Command) *cobra.Command {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	return Group(cmd)
}

// Group makes cmd one that only holds subcommands: by itself it prints its
// help, and an argument is an unknown subcommand.
func Group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// Report writes the error that cmd ended with, and returns the exit code.
func Report(stderr io.Writer, cmd *cobra.Command, err error) int {
	fmt.Fprintf(stderr, "%s: %v\n", cmd.Root().Name(), err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.CommandPath())
		return ExitUsage
	}
	return ExitFailed
}

// NoArgs refuses arguments, which on a command with subcommands are unknown
// subcommands.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("unknown argument %q for %s", args[0], cmd.CommandPath())
	}
	return nil
}

// OneArg wants one argument; what says what it is, as in "the node's name".
func OneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] != "" {
			return nil
		}
		return Usagef("%s needs one argument: %s", cmd.CommandPath(), what)
	}
}

// Confirm asks a person on standard error, unless yes says that it need not.
func Confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	fmt.Fprint(cmd.ErrOrStderr(), question+" [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("not confirmed: nothing was done (--yes confirms)")
	}
	return nil
}
