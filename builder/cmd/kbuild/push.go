package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/cli"
)

func pushCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "push oci://HOST/REPOSITORY:TAG --from DIR",
		Short: "Push an image's update files to a registry",
		Long: `Push an image's update files to a registry, as an OCI artifact that nodes upgrade
from: 'kbuild-firstboot upgrade stage oci://HOST/REPOSITORY:TAG'. The push uses
the credentials of 'docker login'; nodes pull without credentials. The artifact's
digest is printed.`,
		Example: `  kbuild push oci://registry.example.com/nodes:v1.20.15 --from out/v1.20.15`,
		Args:    cli.OneArg("where to push to, as oci://HOST/REPOSITORY:TAG"),
		RunE: func(cmd *cobra.Command, args []string) error {
			digest, err := builder.Push(cmd.Context(), dir, args[0], progress.To(cmd.ErrOrStderr()))
			if err != nil {
				if _, bad := err.(builder.BadSpec); bad {
					return cli.Usage(err)
				}
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), digest)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "from", "out", "output directory of `kbuild image`")
	return cmd
}
