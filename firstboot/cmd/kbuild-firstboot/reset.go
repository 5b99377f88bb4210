package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/reset"
)

// firstbootUnit is the unit that runs the list at boot.
const firstbootUnit = "kbuild-firstboot.service"

func resetCommand(dir *string) *cobra.Command {
	var o reset.Options
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Leave the cluster, wipe the state and boot as a new machine",
		Long: `Leave the cluster, wipe the state and boot as a new machine, which is made a
node anew from its user-data. On a control plane its member of etcd, its entry
in ClusterStatus and its Node are removed; on a worker the Node stays for
'kbuild reset' or 'kubectl delete node'. Pods are not drained: 'kbuild reset
NODE' does that. A reset that is cut goes on at the next boot.

The last control plane, and one without which etcd has no quorum, is refused
unless it is forced; so is one whose cluster does not answer.`,
		Example: `  kbuild-firstboot reset
  kbuild-firstboot reset --force`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			if err := cli.Confirm(cmd, yes || o.Force, "All data on this machine will be lost. Are you sure?"); err != nil {
				return err
			}
			unlock, err := m.Host.Lock(lockFile)
			if err != nil {
				// Most likely the machine waits to become a node.
				if err := m.Host.Systemd.Stop(cmd.Context(), firstbootUnit); err != nil {
					return err
				}
				if unlock, err = m.Host.Lock(lockFile); err != nil {
					return fmt.Errorf("another run is under way (`kbuild-firstboot status` tells how far it is): %w", err)
				}
			}
			defer unlock()
			return reset.Run(cmd.Context(), m, o, reportOf(m))
		},
	}
	cmd.Flags().BoolVar(&o.Force, "force", false, "do not ask, and go on where the cluster is harmed or does not answer")
	cmd.Flags().BoolVar(&o.KeepSlots, "keep-slots", false, "leave the image in the other slot, which is forgotten otherwise")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
