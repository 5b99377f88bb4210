package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
)

func resetCommand() *cobra.Command {
	var o fleet.ResetOptions
	var yes bool
	var kubeconfig, format string
	cmd := &cobra.Command{
		Use:   "reset NODE",
		Short: "Remove a node from the cluster, and wipe its machine",
		Long: `Remove a node from the cluster, and wipe its machine: the node is cordoned and
drained, its machine leaves the cluster, wipes its state and reboots, and the
Node is deleted. The machine then becomes a new node, as its user-data says.

The last control plane, a control plane without which etcd would lose its quorum,
and a node that is not Ready are refused unless --force is given. If the node is
not Ready, --force deletes the Node and has another control plane remove its etcd
member; the machine itself is not touched.`,
		Example: `  kbuild reset worker-3
  kbuild reset cp2 --force --yes`,
		Args: cli.OneArg("the node's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			switch {
			case o.DrainTimeout < 0 || o.NodeTimeout <= 0:
				return cli.Usagef("--drain-timeout must not be negative, and --node-timeout must be more than zero: use durations such as 10m")
			case format == "json" && !yes && !o.Force:
				return cli.Usagef("-o json is non-interactive: give --yes, too")
			}
			f, seen, err := observe(cmd.Context(), kubeconfig)
			if err != nil {
				return err
			}
			if err := fleet.CheckReset(seen, name); err != nil && o.Force {
				fmt.Fprintf(cmd.ErrOrStderr(), "kbuild: the reset is forced: %v\n", err)
			} else if err != nil {
				return err
			}
			if err := cli.Confirm(cmd, yes || o.Force, "All data on the machine of node "+name+" will be lost. Are you sure?"); err != nil {
				return err
			}
			v := newView(cmd.OutOrStdout(), format)
			f.Report = v.report
			return v.end(f.Reset(cmd.Context(), name, o))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&kubeconfig, "kubeconfig", "", kubeconfigUsage)
	fl.BoolVar(&o.Force, "force", false, "do not ask, and continue even if the cluster is harmed, pods are lost or the machine cannot be reached")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	fl.BoolVar(&o.KeepNode, "keep-node", false, "keep the Node object")
	fl.DurationVar(&o.DrainTimeout, "drain-timeout", 10*time.Minute, "how long draining the node may take; 0: no limit")
	fl.DurationVar(&o.NodeTimeout, "node-timeout", 10*time.Minute, "how long the machine may take to leave the cluster")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}
