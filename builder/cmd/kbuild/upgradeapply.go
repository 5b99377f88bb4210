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
		Short: "Upgrade all nodes",
		Long: `Upgrade all nodes: the control planes one at a time, and only while etcd and API
server of all others are healthy, then the workers. Each node writes the image
into its other slot, is cordoned and drained (like kubectl drain, respecting
PodDisruptionBudgets), reboots, and is uncordoned when it is Ready in the new
version.

The upgrade stops at the first failure, such as a node that falls back to its old
version. Run the same command again to resume: nodes of the new version are left
alone. A Lease keeps a second operator from working at the same time.

--source is the URL of the directory with the new image's SHA256SUMS, as the
nodes reach it: the --out of 'kbuild image' on a web server.`,
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
			f.ObserveAPIs(cmd.Context(), &seen)
			p, err := fleet.MakePlan(seen, o.To)
			if err != nil {
				return fmt.Errorf("cannot upgrade to %s: %w; %s", o.To, err, targets(p))
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
			if err := cli.Confirm(cmd, yes, "The nodes will reboot into "+o.To+" in this order. Are you sure?"); err != nil {
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
	fl.StringVar(&o.To, "to", "", "`version` to upgrade to (required)")
	fl.StringVar(&o.Source, "source", "", "`URL` of the new image's directory, as the nodes reach it (required)")
	fl.IntVar(&o.MaxUnavailable, "max-unavailable", 1, "how many workers may be unavailable at the same time")
	fl.DurationVar(&o.DrainTimeout, "drain-timeout", 10*time.Minute, "how long draining a node may take; 0: no limit")
	fl.DurationVar(&o.NodeTimeout, "node-timeout", 45*time.Minute, "how long a node may take to write the image, and to become Ready after each boot of it")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

func checkUpgrade(o fleet.UpgradeOptions, format string, yes bool) error {
	source, err := url.Parse(o.Source)
	switch {
	case o.To == "":
		return cli.Usagef("--to is missing: give a version (`kbuild upgrade plan` lists the possible ones)")
	case o.Source == "":
		return cli.Usagef("--source is missing: give the URL of the new image, as in https://images.example.com/v1.20.15/")
	case err != nil || strings.ContainsAny(o.Source, "{} \t\n") || !strings.HasPrefix(o.Source, "/") && (source.Scheme == "" || source.Host == "" && source.Path == ""):
		return cli.Usagef("--source is %q: want the URL of a directory, or a path on the nodes, without a template", o.Source)
	case err == nil && (source.User != nil || source.RawQuery != ""):
		return cli.Usagef("--source has a user, a password or a query: it must hold no secret, because it is shown in Jobs and in the nodes' journals. Serve updates without authentication: they are signed")
	case o.MaxUnavailable < 1:
		return cli.Usagef("--max-unavailable is %d: use 1 or more", o.MaxUnavailable)
	case o.DrainTimeout < 0 || o.NodeTimeout <= 0:
		return cli.Usagef("--drain-timeout must not be negative, and --node-timeout must be more than zero: use durations such as 10m")
	case format == "json" && !yes:
		return cli.Usagef("-o json is non-interactive: give --yes, too")
	}
	if _, err := images.Assume(o.To); err != nil {
		return cli.Usagef("--to: %w", err)
	}
	return nil
}
