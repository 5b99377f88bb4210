package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

func upgradeDiffCommand(kubeconfig *string) *cobra.Command {
	var to, format string
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Show what an upgrade changes in static pods, add-ons and configuration",
		Long: `Show, object by object, what an upgrade changes: the control planes' static pods,
kube-proxy, CoreDNS, and the ConfigMaps of kubeadm, kubelets and add-ons. Nothing
is changed. Patches in the nodes' user-data are not taken into account, since
only the nodes know them.`,
		Example: `  kbuild upgrade diff
  kbuild upgrade diff --to v1.20.15 | less`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := images.Assume(to); to != "" && err != nil {
				return cli.Usagef("--to: %w", err)
			}
			f, seen, err := observe(cmd.Context(), *kubeconfig)
			if err != nil {
				return err
			}
			p, err := fleet.MakePlan(seen, to)
			if err != nil {
				return fmt.Errorf("cannot upgrade to %s: %w; %s", to, err, targets(p))
			}
			if p.To == "" {
				return errors.New("there is nothing to compare with: " + targets(p))
			}
			changes, err := f.Diff(cmd.Context(), seen, p.To)
			if err != nil {
				return err
			}
			return cli.Print(cmd.OutOrStdout(), format, changes, func(w io.Writer) error {
				for _, d := range changes {
					if _, err := io.WriteString(w, d.Diff); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`version` to compare with (default: the newest that the cluster can be upgraded to)")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}
