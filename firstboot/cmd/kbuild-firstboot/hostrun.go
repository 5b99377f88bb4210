package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// ended is the exit code of a command that was run for somebody, and has said
// itself what there is to say.
type ended int

func (e ended) Error() string { return fmt.Sprintf("the command ended with exit code %d", int(e)) }

const (
	// outcomeSize is how much of what a command has said last is its outcome.
	outcomeSize = 3000
	// stopPatience is how long a command may take to end when it is stopped.
	stopPatience = 20 * time.Second
)

type hostRun struct {
	unit, boot, outcome string
	outlive             bool
}

func hostRunCommand(dir *string) *cobra.Command {
	var o hostRun
	cmd := &cobra.Command{
		Use:   "host-run --unit NAME [--boot ID] -- COMMAND [ARGUMENT…]",
		Short: "Run a command as a service of the host, from a container on it",
		Long: `Run a command as a transient service of the host, print what it prints, and end
with its exit code. 'kbuild upgrade' and 'kbuild reset' use it in a container
that has the host's bus in /run/dbus, and below --root its files.

A service of that name that runs or has ended in this boot is not begun again:
its outcome is told.`,
		Example: `  kbuild-firstboot host-run --unit kbuild-stage-1 -- kbuild-firstboot upgrade stage https://images.example.com/v1.20.15/`,
		Hidden:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("want a command behind --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.unit == "" || strings.ContainsAny(o.unit, "/. ") {
				return cli.Usagef("--unit is %q: want the name of a service without its .service", o.unit)
			}
			h, err := host.Local(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer h.Root.Close()
			var said tail
			err = o.run(cmd.Context(), h, args, io.MultiWriter(cmd.ErrOrStderr(), &said))
			if _, told := errors.AsType[ended](err); err != nil && !told {
				fmt.Fprintln(&said, err)
			}
			if o.outcome != "" {
				os.WriteFile(o.outcome, cluster.NewJobResult(string(said)).Message(), 0o644) // the log holds it, too
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.unit, "unit", "", "`name` of the service")
	cmd.Flags().StringVar(&o.boot, "boot", "", "refuse unless the machine runs in the boot of this `ID`")
	cmd.Flags().StringVar(&o.outcome, "outcome", "", "`file` that gets what the command has said last, as JSON")
	cmd.Flags().BoolVar(&o.outlive, "outlive", false, "let the command go on when this program is stopped")
	return cmd
}

// run runs the command and tells out what it says.
func (o hostRun) run(ctx context.Context, h *host.Host, args []string, out io.Writer) error {
	if o.boot != "" {
		now, err := h.BootID()
		if err != nil {
			return err
		}
		if now != o.boot {
			return outcome.Refuse("this was to be done in boot %s, and the machine has booted again since (%s): nothing was done", o.boot, now)
		}
	}
	if !strings.Contains(args[0], "/") {
		args = append([]string{"/usr/bin/" + args[0]}, args[1:]...)
	}
	t := host.Transient{Unit: o.unit + ".service", Description: "kbuild: " + strings.Join(args, " "), Args: args, Output: "/run/kbuild/" + o.unit + ".log"}
	result, err := h.Follow(ctx, t, out)
	if ctx.Err() != nil {
		return o.stopped(ctx, h, t, out)
	}
	if err != nil {
		return err
	}
	if result.GoingDown {
		fmt.Fprintln(out, "the machine goes down")
		return nil
	}
	h.Systemd.Forget(ctx, t.Unit) // it goes with the next boot anyway
	h.Remove(t.Output)
	switch {
	case result.State == "active":
		return nil
	case result.State == "inactive":
		return fmt.Errorf("%s was stopped by somebody else", t.Unit)
	case result.Code >= 200 && result.Code < 250: // systemd.exec(5), Process Exit Codes
		fmt.Fprintf(out, "systemd cannot start %s (exit code %d); journalctl -u %s on the node says why\n", args[0], result.Code, t.Unit)
	}
	return ended(cmp.Or(result.Code, cli.ExitFailed))
}

// stopped ends the command, or leaves it to itself, when this program is to
// end.
func (o hostRun) stopped(ctx context.Context, h *host.Host, t host.Transient, out io.Writer) error {
	if o.outlive {
		fmt.Fprintf(out, "%s goes on by itself\n", t.Unit)
		return nil
	}
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	return errors.Join(cause, h.Systemd.Forget(ctx, t.Unit), h.Remove(t.Output))
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - outcomeSize; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
