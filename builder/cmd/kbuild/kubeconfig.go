package main

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/pki"
)

func clusterKubeconfigCommand() *cobra.Command {
	var open openFlags
	var out outFlags
	var server string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Write an administrator's kubeconfig",
		Long: `Write an administrator's kubeconfig for the cluster in directory NAME, signed by
the cluster's certificate authority. No machine needs to be on. As with kubeadm's
admin.conf, its holder may do anything, and it cannot be revoked before it
expires: choose a short --validity.`,
		Example: `  kbuild cluster kubeconfig prod --out prod.conf
  kubectl --kubeconfig prod.conf get nodes
  kbuild cluster kubeconfig prod --validity 8h --server https://127.0.0.1:6443`,
		Args: cli.OneArg("the cluster's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if u, err := url.Parse(server); server != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
				return cli.Usagef("--server is %q: want a URL such as https://k8s.example.com:6443", server)
			}
			if life <= 0 {
				return cli.Usagef("--validity must be more than zero: want a duration such as 8h")
			}
			if err := out.check(); err != nil {
				return err
			}
			d, err := open.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			crt, err := d.PKI(pki.CA + ".crt")
			if err != nil {
				return err
			}
			key, err := d.PKI(pki.CA + ".key")
			if err != nil {
				return err
			}
			admin := pki.Kubeconfigs(d.Node, d.Release)[0]
			if server != "" {
				admin.Server = server
			}
			b, err := admin.Issue(d.Node, crt, key, life, pki.Clock{Now: time.Now()})
			if err != nil {
				return err
			}
			return out.write(cmd, b)
		},
	}
	open.add(cmd)
	out.add(cmd)
	cmd.Flags().StringVar(&server, "server", "", "`URL` of the API server (default: the cluster's endpoint)")
	cmd.Flags().DurationVar(&life, "validity", 365*24*time.Hour, "how long it is valid")
	return cmd
}
