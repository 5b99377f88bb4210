package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

func upgradeCommand() *cobra.Command {
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Upgrade the nodes of a running cluster",
		Long: `Upgrade the nodes of a running cluster to another version of Kubernetes. Each
node boots an image of that version from its other slot. A node that does not
become healthy falls back to its old version by itself.`,
	}
	cmd.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", "", kubeconfigUsage)
	cmd.AddCommand(upgradePlanCommand(&kubeconfig), upgradeApplyCommand(&kubeconfig), upgradeDiffCommand(&kubeconfig))
	return cli.Group(cmd)
}

func upgradePlanCommand(kubeconfig *string) *cobra.Command {
	var to, format string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what an upgrade would do, and which versions are possible",
		Long: `Show which versions the cluster can be upgraded to, the order of its nodes, what
is done with each of them, whether a rollback will be possible, and which APIs
are in use that the version does not serve. Of those, the API server that answers
names what it has been asked for since it started. Nothing is changed.`,
		Example: `  kbuild upgrade plan
  kbuild upgrade plan --to v1.20.15 -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := images.Assume(to); to != "" && err != nil {
				return cli.Usagef("--to: %w", err)
			}
			f, seen, err := observe(cmd.Context(), *kubeconfig)
			if err != nil {
				return err
			}
			f.ObserveAPIs(cmd.Context(), &seen)
			p, err := fleet.MakePlan(seen, to)
			if err != nil {
				return fmt.Errorf("cannot upgrade to %s: %w; %s", to, err, targets(p))
			}
			return cli.Print(cmd.OutOrStdout(), format, p, func(w io.Writer) error { return printPlan(w, p) })
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`version` to upgrade to (default: the newest that is possible)")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

// targets says which versions the cluster can be upgraded to.
func targets(p fleet.Plan) string {
	if len(p.Targets) == 0 {
		return "this kbuild knows no version that it can be upgraded to"
	}
	return "it can be upgraded to " + strings.Join(p.Targets, " or ")
}

// printPlan prints a plan as text.
func printPlan(w io.Writer, p fleet.Plan) error {
	fmt.Fprintf(w, "The cluster runs %s; %s.\n", p.Cluster, targets(p))
	if p.To != "" {
		fmt.Fprintf(w, "Upgrading to %s, in this order:\n", p.To)
	}
	fmt.Fprintln(w)
	err := cli.Table(func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tROLE\tVERSION\tREADY\tACTIONS")
		for _, n := range p.Nodes {
			ready, do := "no", "nothing"
			if n.Ready {
				ready = "yes"
			}
			if len(n.Do) > 0 {
				do = strings.Join(n.Do, "; ")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Role, n.Version, ready, do)
		}
	})(w)
	if err != nil {
		return err
	}
	fmt.Fprintln(w)
	if p.Back != "" {
		fmt.Fprintf(w, "Rollback: %s.\n", p.Back)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(w, "Note: %s.\n", n)
	}
	for _, r := range p.Removed {
		fmt.Fprintf(w, "Removed API: %s %s is in use, and Kubernetes v%s does not serve it: %s.\n", r.API, r.Resource, r.Removed, r.Remedy)
	}
	for _, b := range p.Blocked {
		fmt.Fprintf(w, "Blocked: %s.\n", b)
	}
	return nil
}
