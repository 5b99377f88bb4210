package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/host"
)

func runCommand(dir *string) *cobra.Command {
	var o firstboot.Options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Go through the list of steps; what holds already is skipped",
		Long: `Go through the list of steps, as on every boot: what holds already is skipped,
what does not is made so. It may be stopped at any time and run again.`,
		Example: `  kbuild-firstboot run
  kbuild-firstboot run --until control-plane
  kbuild-firstboot run --skip-phases addon,mark-control-plane`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return converge(cmd, *dir, o)
		},
	}
	cmd.Flags().StringVar(&o.Until, "until", "", "stop after this step")
	cmd.Flags().StringSliceVar(&o.Skip, "skip-phases", nil, "steps to leave out")
	return cmd
}

func phaseCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "phase NAME",
		Short: "Do one step of the list",
		Long: `Do one step of the list, and no other but metadata, which tells who this node
is. ` + "`kbuild-firstboot plan`" + ` lists the steps.`,
		Example: `  kbuild-firstboot phase certs
  kbuild-firstboot phase addon`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want the name of one step")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return converge(cmd, *dir, firstboot.Options{Only: args[0]})
		},
	}
}

// converge runs the list and tells journal, console, systemd and the status
// file how it goes.
func converge(cmd *cobra.Command, dir string, o firstboot.Options) error {
	r, err := open(dir, slog.New(logHandler(cmd.ErrOrStderr())))
	if err != nil {
		return err
	}
	defer r.Host.Root.Close()
	report := &firstboot.Report{Host: r.Host, Notify: func(state string) {
		daemon.SdNotify(false, state) // no service manager listens to a person's run
	}}
	return firstboot.Converge(cmd.Context(), r, firstboot.List, o, report)
}

// logHandler logs to the journal and the console when systemd runs this
// program, and to stderr when a person does.
func logHandler(stderr io.Writer) slog.Handler {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return host.ConsoleHandler(func() (io.WriteCloser, error) { return keepOpen{stderr}, nil })
	}
	return both{host.JournalHandler(), host.ConsoleHandler(func() (io.WriteCloser, error) {
		return os.OpenFile("/dev/console", os.O_WRONLY, 0)
	})}
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// both is a handler that hands each record to two.
type both [2]slog.Handler

func (b both) Enabled(ctx context.Context, l slog.Level) bool {
	return b[0].Enabled(ctx, l) || b[1].Enabled(ctx, l)
}

func (b both) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(b[0].Handle(ctx, r.Clone()), b[1].Handle(ctx, r))
}

func (b both) WithAttrs(a []slog.Attr) slog.Handler {
	return both{b[0].WithAttrs(a), b[1].WithAttrs(a)}
}

func (b both) WithGroup(g string) slog.Handler { return both{b[0].WithGroup(g), b[1].WithGroup(g)} }
