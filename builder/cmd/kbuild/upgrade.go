package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

func upgradeCommand() *cobra.Command {
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Take the nodes of a running cluster to another version",
		Long: `Take the nodes of a running cluster to another version of Kubernetes. Each node
boots an image of that version from its other slot; one that does not become
healthy in it goes back by itself.`,
	}
	cmd.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", "", kubeconfigUsage)
	cmd.AddCommand(upgradePlanCommand(&kubeconfig), upgradeApplyCommand(&kubeconfig), upgradeDiffCommand(&kubeconfig))
	return cli.Group(cmd)
}

func upgradePlanCommand(kubeconfig *string) *cobra.Command {
	var to, format string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what an upgrade would do, and to which versions",
		Long: `Say which versions the cluster may become, in which order its nodes are taken,
what is done with each, and whether going back will be legal. It only reads.`,
		Example: `  kbuild upgrade plan
  kbuild upgrade plan --to v1.20.15 -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := images.Lookup(to); to != "" && err != nil {
				return cli.Usagef("--to: %w", err)
			}
			_, seen, err := observe(cmd.Context(), *kubeconfig)
			if err != nil {
				return err
			}
			p, err := fleet.MakePlan(seen, to)
			if err != nil {
				return fmt.Errorf("cannot upgrade to %s: %w; %s", to, err, mayBecome(p))
			}
			return cli.Print(cmd.OutOrStdout(), format, p, func(w io.Writer) error { return printPlan(w, p) })
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`version` to go to (default: the newest that the cluster may become)")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

func mayBecome(p fleet.Plan) string {
	if len(p.Targets) == 0 {
		return "this kbuild knows no version that it may become"
	}
	return "it may become " + strings.Join(p.Targets, " or ")
}

// printPlan writes a plan for people.
func printPlan(w io.Writer, p fleet.Plan) error {
	fmt.Fprintf(w, "The cluster is of %s; %s.\n", p.Cluster, mayBecome(p))
	if p.To != "" {
		fmt.Fprintf(w, "To %s, the nodes go in this order:\n", p.To)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tROLE\tVERSION\tREADY\tWHAT IS DONE")
	for _, n := range p.Nodes {
		ready, do := "no", "nothing"
		if n.Ready {
			ready = "yes"
		}
		if len(n.Do) > 0 {
			do = strings.Join(n.Do, "; ")
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Role, n.Version, ready, do)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if p.Back != "" {
		fmt.Fprintf(w, "Going back: %s.\n", p.Back)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(w, "Note: %s.\n", n)
	}
	for _, b := range p.Blocked {
		fmt.Fprintf(w, "In the way: %s.\n", b)
	}
	return nil
}
