package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/firstboot/upgrade"
)

func upgradeCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Put another image into the other slot, boot it, or go back",
		Long: `Put another image into the other slot, boot it, or go back.

A new image is staged into the slot that does not run, and nothing changes until
it is applied: then the machine reboots into it. When Kubernetes is healthy on
it in time, it is kept; otherwise the machine reboots, and after three tries it
runs the old image again. What the new one changed is undone then.`,
		Example: `  kbuild-firstboot upgrade stage https://images.example.com/v1.20.15/
  kbuild-firstboot upgrade apply
  kbuild-firstboot upgrade status`,
	}
	cmd.AddCommand(stageCommand(dir), applyCommand(dir), cancelCommand(dir), rollbackCommand(dir), slotsCommand(dir), failedCommand(dir))
	return cli.Group(cmd)
}

// withSlots opens the machine for a command that changes slots.
func withSlots(cmd *cobra.Command, dir string, do func(context.Context, *node.Machine) error) error {
	m, err := open(dir, slog.New(logHandler(cmd.ErrOrStderr())))
	if err != nil {
		return err
	}
	defer m.Host.Root.Close()
	unlock, err := slot.Lock(m.Host)
	if err != nil {
		return err
	}
	defer unlock()
	return do(cmd.Context(), m)
}

func stageCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "stage SOURCE",
		Short: "Put an image into the slot that does not run",
		Long: `Put an image into the slot that does not run. SOURCE is a directory that
'kbuild image' has written: its URL on any HTTP server, an artefact in a
registry (oci://HOST/REPOSITORY:TAG), or an absolute path.

Nothing is written before the update's signature, version, architecture and
size are known to be right, and nothing counts before its digests are. A
download that was cut goes on where it stopped. Exit code 4 is a refusal.`,
		Example: `  kbuild-firstboot upgrade stage https://images.example.com/v1.20.15/
  kbuild-firstboot upgrade stage oci://registry.example.com/nodes:v1.20.15
  kbuild-firstboot upgrade stage /var/tmp/v1.20.15`,
		Args: cli.OneArg("a URL or an absolute path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withSlots(cmd, *dir, func(ctx context.Context, m *node.Machine) error {
				rec, err := slot.Stage(ctx, m.Host, m.Baked, args[0])
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "staged %s; `kbuild-firstboot upgrade apply` boots it\n", rec.Update.Release.Version)
				}
				return err
			})
		},
	}
}

func applyCommand(dir *string) *cobra.Command {
	var noReboot bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Boot the staged image",
		Long: `Boot the staged image: the machine reboots at once. Pods are not drained: 'kbuild
upgrade apply' does that, for a whole fleet.`,
		Example: `  kbuild-firstboot upgrade apply
  kbuild-firstboot upgrade apply --no-reboot`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSlots(cmd, *dir, func(ctx context.Context, m *node.Machine) error {
				if err := upgrade.CheckTry(m); err != nil {
					return err
				}
				rec, err := slot.Apply(ctx, m.Host)
				if err != nil {
					return err
				}
				return rebootInto(ctx, cmd, m, rec.Update.Release.Version, noReboot)
			})
		},
	}
	cmd.Flags().BoolVar(&noReboot, "no-reboot", false, "leave the reboot to somebody else")
	return cmd
}

func rebootInto(ctx context.Context, cmd *cobra.Command, m *node.Machine, what string, no bool) error {
	if no {
		fmt.Fprintf(cmd.OutOrStdout(), "the next boot is of %s\n", what)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "rebooting into %s\n", what)
	return m.Host.Do("reboot", func() error { return m.Host.Systemd.Start(ctx, "reboot.target") })
}

func cancelCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "cancel",
		Short:   "Take a staged image out again",
		Long:    "Take an image that is staged, or staged in part, or applied and not booted yet,\nout of the other slot. What that slot held before is gone.",
		Example: `  kbuild-firstboot upgrade cancel`,
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSlots(cmd, *dir, func(ctx context.Context, m *node.Machine) error { return slot.Cancel(ctx, m.Host) })
		},
	}
}

func rollbackCommand(dir *string) *cobra.Command {
	var noReboot bool
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the image that ran before",
		Long: `Go back to the image in the other slot: the machine reboots at once, and what
the present image changed on the state partition is undone. It is refused where
the older version's etcd could not read what the newer one's has written.`,
		Example: `  kbuild-firstboot upgrade rollback`,
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSlots(cmd, *dir, func(ctx context.Context, m *node.Machine) error {
				err := slot.Rollback(ctx, m.Host, func(other string) error { return upgrade.CheckRollback(m, other) })
				if err != nil {
					return err
				}
				return rebootInto(ctx, cmd, m, "the other slot", noReboot)
			})
		},
	}
	cmd.Flags().BoolVar(&noReboot, "no-reboot", false, "leave the reboot to somebody else")
	return cmd
}

func slotsCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what the slots hold and how the last update went",
		Example: `  kbuild-firstboot upgrade status
  kbuild-firstboot upgrade status -o json | jq .other.state`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			st, err := slot.ReadStatus(cmd.Context(), m.Host, m.Baked)
			if err != nil {
				return err
			}
			return cli.Print(cmd.OutOrStdout(), o, st, cli.Table(func(w io.Writer) { slotsText(w, st) }))
		},
	}
	cli.OutputFlag(cmd, &o, "text", "json", "yaml")
	return cmd
}

func slotsText(w io.Writer, st slot.Status) {
	state := "runs"
	if st.Running.OnTrial {
		state = "on trial"
	}
	fmt.Fprintf(w, "SLOT\tSTATE\tVERSION\tROOT HASH\n")
	fmt.Fprintf(w, "%s\t%s\t%s\t%.16s\n", st.Running.Slot, state, st.Running.Version, st.Running.RootHash)
	fmt.Fprintf(w, "%s\t%s\t%s\t%.16s\n", st.Other.Slot, st.Other.State, st.Other.Version, st.Other.RootHash)
	u := st.Update
	if u == nil {
		return
	}
	fmt.Fprintf(w, "\nlast update: %s to %s, from %s, begun %s\n", u.From, u.Update.Release.Version, u.Source, u.Begun.Local().Format(time.DateTime))
	switch {
	case u.Outcome == slot.FellBack:
		fmt.Fprintf(w, "%s: %s\n", u.Outcome, u.Why())
	case u.Outcome != slot.Pending:
		fmt.Fprintf(w, "%s\n", u.Outcome)
	case len(u.Failures) > 0:
		fmt.Fprintf(w, "a boot of it was not healthy: %s\n", u.Why())
	}
}

// failedCommand is called by kbuild-fallback.service.
func failedCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:    "failed",
		Short:  "Write down why this boot of a new image is given up",
		Args:   cli.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			return upgrade.GiveUp(cmd.Context(), m)
		},
	}
}
