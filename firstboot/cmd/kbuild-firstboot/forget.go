package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/reset"
)

func forgetCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "forget NODE",
		Short: "Take a control plane whose machine is gone out of etcd",
		Long: `Take out of etcd what a control plane has left whose machine is gone for good;
run it on another control plane. 'kbuild reset NODE --force' does, and deletes
the Node, too. A node that is Ready, or whose member of etcd answers, is refused.`,
		Example: `  kbuild-firstboot forget cp2`,
		Args:    cli.OneArg("the node's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			return reset.RemoveMember(cmd.Context(), m, args[0])
		},
	}
}
