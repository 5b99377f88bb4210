package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/firstboot/upgrade"
)

func uncordonCommand(dir *string) *cobra.Command {
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "uncordon [--after DURATION]",
		Short: "Let pods come again to this node, which was to go down",
		Long: `Let pods come to this node again that 'kbuild upgrade' or 'kbuild reset' has
cordoned in this boot, and has not had go down. They run this on each node that
they cordon, for the case that the operator's machine is gone before it does. A
node that somebody else has cordoned stays so.`,
		Example: `  kbuild-firstboot uncordon
  kbuild-firstboot uncordon --after 55m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if after < 0 {
				return usageError{errors.New("--after is a duration such as 55m")}
			}
			r, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			return upgrade.Uncordon(cmd.Context(), r, after)
		},
	}
	cmd.Flags().DurationVar(&after, "after", 0, "wait for this `DURATION` first")
	return cmd
}
