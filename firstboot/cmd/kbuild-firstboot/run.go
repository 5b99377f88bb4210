package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/reset"
)

func runCommand(dir *string) *cobra.Command {
	var o converge.Options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Go through the list of steps; what holds already is skipped",
		Long: `Go through the list of steps, as on every boot: what holds already is skipped,
what does not is made so. It may be stopped at any time and run again.`,
		Example: `  kbuild-firstboot run
  kbuild-firstboot run --until control-plane
  kbuild-firstboot run --skip-phases addon,mark-control-plane`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runList(cmd, *dir, o)
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
		Long: `Do one step of the list, after the first ones (clock, metadata, hostname), which
tell who this node is. ` + "`kbuild-firstboot plan`" + ` lists the steps.`,
		Example: `  kbuild-firstboot phase certs
  kbuild-firstboot phase addon`,
		Args: cli.OneArg("the step's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runList(cmd, *dir, converge.Options{Only: args[0]})
		},
	}
}

// lockFile keeps two runs from working at the same time.
const lockFile = "/run/kbuild/lock"

// runList runs the list and tells journal, console, systemd and the status
// file how it goes. A machine that is being reset goes on with that instead.
func runList(cmd *cobra.Command, dir string, o converge.Options) error {
	m, err := open(dir, slog.New(logHandler(cmd.ErrOrStderr())))
	if err != nil {
		return err
	}
	defer m.Host.Root.Close()
	unlock, err := m.Host.Lock(lockFile)
	if err != nil {
		return fmt.Errorf("another run is under way (`kbuild-firstboot status` tells how far it is): %w", err)
	}
	defer unlock()
	if node.Resetting(m.Host) {
		m.Host.Log.Info("a reset of this machine has begun: it goes on")
		return reset.Run(cmd.Context(), m, reset.Options{}, reportOf(m))
	}
	return converge.Run(cmd.Context(), m, firstboot.List, o, reportOf(m))
}

func reportOf(m *node.Machine) *converge.Report {
	return &converge.Report{Host: m.Host, Notify: func(state string) {
		daemon.SdNotify(false, state) // no service manager listens to a person's run
	}}
}

// logHandler logs to the journal, and where people see it: to the console when
// systemd runs this program, to stderr when a person does.
func logHandler(stderr io.Writer) slog.Handler {
	if inUnit, _ := journal.StderrIsJournalStream(); inUnit {
		return slog.NewMultiHandler(host.JournalHandler(), host.ConsoleHandler(func() (io.WriteCloser, error) {
			// Not the controlling terminal, and no waiting for a line that nobody reads.
			return os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
		}))
	}
	people := host.ConsoleHandler(func() (io.WriteCloser, error) { return keepOpen{stderr}, nil })
	if os.Getuid() == 0 && journal.Enabled() {
		return slog.NewMultiHandler(host.JournalHandler(), people)
	}
	return people
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
