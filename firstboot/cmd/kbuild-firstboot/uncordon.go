package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/upgrade"
)

func uncordonCommand(dir *string) *cobra.Command {
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "uncordon [--after DURATION]",
		Short: "Uncordon this node if its reboot never came",
		Long: `Uncordon this node if 'kbuild upgrade' or 'kbuild reset' has cordoned it in this
boot and has not rebooted it. They start this on each node that they cordon, in
case the operator's machine fails before it uncordons the node. A node that was
cordoned by anyone else stays cordoned.`,
		Example: `  kbuild-firstboot uncordon
  kbuild-firstboot uncordon --after 55m`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if after < 0 {
				return cli.Usagef("--after must not be negative: use a duration such as 55m")
			}
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			return upgrade.Uncordon(cmd.Context(), m, after)
		},
	}
	cmd.Flags().DurationVar(&after, "after", 0, "wait for this `DURATION` first")
	return cmd
}
