package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

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
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want the name of one node")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			return reset.RemoveMember(cmd.Context(), r, args[0])
		},
	}
}
