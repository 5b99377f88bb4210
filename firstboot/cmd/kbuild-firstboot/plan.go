package main

import (
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/converge"
)

func planCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell which steps hold already and which a run would do",
		Long: `Tell which steps hold already and which a run would do now. Nothing is changed
and nothing waited for. A step that comes after one that does not hold often
cannot tell yet. The steps of the node's role follow once it has a role.`,
		Example: `  kbuild-firstboot plan
  kbuild-firstboot plan -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o); err != nil {
				return err
			}
			r, err := open(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			plan, known := converge.Plan(cmd.Context(), r, firstboot.List)
			return printAs(cmd.OutOrStdout(), o, plan, func(w *tabwriter.Writer) {
				for _, p := range plan {
					fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.State, firstLine(p.Why))
				}
				if !known {
					fmt.Fprintln(w, "\nThis node has no role yet: its user-data tells it, and the further steps with it.")
				}
			})
		},
	}
	outputFlag(cmd, &o)
	return cmd
}
