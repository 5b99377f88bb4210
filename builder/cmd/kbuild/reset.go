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
		Short: "Take a node out of the cluster, and make its machine a new one",
		Long: `Take a node out of the cluster, and make its machine a new one: it is cordoned
and drained, its machine leaves the cluster, wipes its state and boots, and its
Node is deleted. The machine is then made a node anew from its user-data.

The cluster's last control plane, one without which etcd has no quorum, and a
node that is not Ready are refused. --force does it all the same; of a node that
is not Ready the Node is deleted, and another control plane takes its member out
of etcd, while its machine stays as it is.`,
		Example: `  kbuild reset worker-3
  kbuild reset cp2 --force --yes`,
		Args: cli.OneArg("the node's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			switch {
			case o.DrainTimeout < 0 || o.NodeTimeout <= 0:
				return cli.Usagef("--drain-timeout and --node-timeout are durations such as 10m")
			case format == "json" && !yes && !o.Force:
				return cli.Usagef("-o json asks no questions: give --yes, too")
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
			if err := cli.Confirm(cmd, yes || o.Force, "All that the machine of node "+name+" has written will be lost. Are you sure?"); err != nil {
				return err
			}
			v := newView(cmd.OutOrStdout(), format)
			f.Report = v.report
			return v.end(f.Reset(cmd.Context(), name, o))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&kubeconfig, "kubeconfig", "", kubeconfigUsage)
	fl.BoolVar(&o.Force, "force", false, "do not ask, and go on where the cluster is harmed, pods are lost or the machine cannot be reached")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	fl.BoolVar(&o.KeepNode, "keep-node", false, "leave the Node object")
	fl.DurationVar(&o.DrainTimeout, "drain-timeout", 10*time.Minute, "how long its pods may take to leave; 0 is for ever")
	fl.DurationVar(&o.NodeTimeout, "node-timeout", 10*time.Minute, "how long its machine may take to leave the cluster")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}
