package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/converge"
)

func planCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show which steps are done and which a run would do",
		Long: `Show which steps are done and which a run would do now. Nothing is changed, and
nothing is waited for. A step that follows one that is not done often cannot be
checked yet. The steps of the node's role are shown once it has a role.`,
		Example: `  kbuild-firstboot plan
  kbuild-firstboot plan -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			plan, known := converge.Plan(cmd.Context(), m, firstboot.List)
			return cli.Print(cmd.OutOrStdout(), o, plan, cli.Table(func(w io.Writer) {
				for _, p := range plan {
					fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.State, firstLine(p.Why))
				}
				if !known {
					fmt.Fprintln(w, "\nThis node has no role yet: its user-data decides the role, and which steps follow.")
				}
			}))
		},
	}
	cli.OutputFlag(cmd, &o, "text", "json", "yaml")
	return cmd
}
