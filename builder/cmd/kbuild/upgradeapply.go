package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

func upgradeApplyCommand(kubeconfig *string) *cobra.Command {
	var o fleet.UpgradeOptions
	var yes bool
	var format string
	cmd := &cobra.Command{
		Use:   "apply --to VERSION --source URL",
		Short: "Take all nodes to another version",
		Long: `Take all nodes to another version: the control planes one at a time, and only
while etcd and API server of all others are well, then the workers. Each node
writes the image into its other slot, is cordoned and drained (as kubectl drain
does, PodDisruptionBudgets respected), reboots, and takes pods again when it is
Ready in the new version.

A node that falls back to its old version stops the upgrade, as anything else
that goes wrong. The same command goes on where it was stopped: nodes of the new
version are left alone. A second operator is kept out meanwhile by a Lease.

--source is the directory with the new image's SHA256SUMS, as the nodes reach
it: the --out of 'kbuild image' on a web server.`,
		Example: `  kbuild upgrade apply --to v1.20.15 --source https://images.example.com/v1.20.15/
  kbuild upgrade apply --to v1.20.15 --source https://images.example.com/v1.20.15/ --max-unavailable 3 --yes -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkUpgrade(o, format, yes); err != nil {
				return err
			}
			f, seen, err := observe(cmd.Context(), *kubeconfig)
			if err != nil {
				return err
			}
			p, err := fleet.MakePlan(seen, o.To)
			if err != nil {
				return fmt.Errorf("cannot upgrade to %s: %w; %s", o.To, err, mayBecome(p))
			}
			v := newView(cmd.OutOrStdout(), format)
			if format == "text" {
				if err := printPlan(cmd.OutOrStdout(), p); err != nil {
					return err
				}
			}
			if len(p.Blocked) > 0 {
				return fmt.Errorf("cannot upgrade to %s: %s", o.To, strings.Join(p.Blocked, "; "))
			}
			if err := cli.Confirm(cmd, yes, "The nodes are rebooted into "+o.To+" in this order. Are you sure?"); err != nil {
				return err
			}
			for _, n := range p.Nodes {
				v.node(n.Name, n.Version)
			}
			f.Report = v.report
			return v.end(f.Upgrade(cmd.Context(), o))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.To, "to", "", "`version` to go to")
	fl.StringVar(&o.Source, "source", "", "`URL` of the new image's directory, as the nodes reach it")
	fl.IntVar(&o.MaxUnavailable, "max-unavailable", 1, "how many workers may be away at once")
	fl.DurationVar(&o.DrainTimeout, "drain-timeout", 10*time.Minute, "how long the pods of a node may take to leave; 0 is for ever")
	fl.DurationVar(&o.NodeTimeout, "node-timeout", 45*time.Minute, "how long a node may take to write the image, and each boot of it to come back")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

func checkUpgrade(o fleet.UpgradeOptions, format string, yes bool) error {
	source, err := url.Parse(o.Source)
	switch {
	case o.To == "":
		return cli.Usagef("--to is missing: say which version (`kbuild upgrade plan` tells which there are)")
	case o.Source == "":
		return cli.Usagef("--source is missing: say where the nodes find the new image, as in https://images.example.com/v1.20.15/")
	case err != nil || strings.ContainsAny(o.Source, "{} \t\n") || !strings.HasPrefix(o.Source, "/") && (source.Scheme == "" || source.Host == "" && source.Path == ""):
		return cli.Usagef("--source is %q: want the URL of a directory, or a path on the nodes, without any template", o.Source)
	case err == nil && (source.User != nil || source.RawQuery != ""):
		return cli.Usagef("--source has a user, a password or a query: it is shown in Jobs and in the nodes' journals, so it must hold no secret. Updates are signed: serve them without")
	case o.MaxUnavailable < 1:
		return cli.Usagef("--max-unavailable is %d: no worker could be taken", o.MaxUnavailable)
	case o.DrainTimeout < 0 || o.NodeTimeout <= 0:
		return cli.Usagef("--drain-timeout and --node-timeout are durations such as 10m")
	case format == "json" && !yes:
		return cli.Usagef("-o json asks no questions: give --yes, too")
	}
	if _, err := images.Lookup(o.To); err != nil {
		return cli.Usagef("--to: %w", err)
	}
	return nil
}
