package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/builder/identity"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/pki"
)

func tokenCreateCommand(f *tokenFlags) *cobra.Command {
	var t config.BootstrapToken
	var ttl time.Duration
	var file string
	var userdata bool
	var key string
	cmd := &cobra.Command{
		Use:   "create [TOKEN]",
		Short: "Create a bootstrap token in the cluster",
		Long: `Create a bootstrap token in the cluster and print it: TOKEN, of the form
abcdef.0123456789abcdef, or a random one.

With --print-join-userdata, the user-data of a worker that joins with the token
is printed instead; any number of machines can use it. With --certificate-key as
well, it is the user-data of a further control plane; the cluster must hold the
certificates that are encrypted with this key.

A token expires after a day unless --ttl says otherwise. Machines that boot after
that cannot join with it.`,
		Example: `  kbuild token create --ttl 2h --description "rack 7"
  kbuild token create --print-join-userdata > worker.yaml
  kbuild token create --print-join-userdata --certificate-key "$KEY" > control-plane.yaml`,
		Args: cobra.MatchAll(func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return cli.Usagef("unknown argument %q for %s: it accepts one token", args[1], cmd.CommandPath())
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key != "" && !userdata {
				return cli.Usagef("--certificate-key is only used in user-data: give --print-join-userdata, too")
			}
			if key != "" {
				if _, err := cluster.NewSealer(config.Secret(key)); err != nil {
					return cli.Usagef("--certificate-key: %w", err)
				}
			}
			if len(args) > 0 {
				t.Token = config.Secret(args[0])
			}
			t.TTL = &metav1.Duration{Duration: ttl}
			tokens, err := tokensOf(cmd, t, file)
			if err != nil {
				return cli.Usage(err)
			}
			return f.create(cmd, tokens, userdata, config.Secret(key))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&file, "config", "", "kubeadm config `file` whose InitConfiguration says which tokens to create; - is standard input")
	fl.BoolVar(&userdata, "print-join-userdata", false, "print the user-data of a machine that joins with the token")
	fl.StringVar(&key, "certificate-key", "", "with --print-join-userdata: print the user-data of a control plane, whose certificates are decrypted with this key")
	fl.DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is valid, as in 30m or 2h; 0: it never expires")
	fl.StringSliceVar(&t.Usages, "usages", []string{"signing", "authentication"}, "what the token may be used for: signing, authentication")
	fl.StringSliceVar(&t.Groups, "groups", []string{"system:bootstrappers:kubeadm:default-node-token"}, "groups of whoever authenticates with the token; each begins with system:bootstrappers:")
	fl.StringVar(&t.Description, "description", "", "description of the token for people")
	return cmd
}

// tokensOf are the tokens to create: t, or what a file says.
func tokensOf(cmd *cobra.Command, t config.BootstrapToken, file string) ([]config.BootstrapToken, error) {
	if file == "" {
		tokens, err := config.Tokens([]config.BootstrapToken{t}, nil)
		if probs, ok := errors.AsType[config.Problems](err); ok { // there is no file to name
			return nil, fmt.Errorf("cannot create this token: %s: %s", probs[0].What, probs[0].Remedy)
		}
		return tokens, err
	}
	for _, name := range []string{"ttl", "usages", "groups", "description", "certificate-key"} {
		if cmd.Flags().Changed(name) {
			return nil, fmt.Errorf("--%s cannot be used together with --config: set it in the file", name)
		}
	}
	if t.Token != "" {
		return nil, errors.New("a token cannot be given together with --config: set it in the file")
	}
	name, b, err := readInput(file, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	n, err := identity.Load(config.Document{Source: name, Data: b})
	if err != nil {
		return nil, err
	}
	return n.Init.BootstrapTokens, nil
}

// create creates the tokens, and prints the first of them or the user-data that
// uses it.
func (f *tokenFlags) create(cmd *cobra.Command, tokens []config.BootstrapToken, userdata bool, key config.Secret) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	c, kc, err := f.connect()
	if err != nil {
		return err
	}
	printed := []byte(tokens[0].Token.Reveal() + "\n")
	if userdata { // first, so that no token is created if the user-data cannot be made
		if printed, err = joinUserdata(kc, tokens[0].Token, key); err != nil {
			return cli.Usage(err)
		}
	}
	for _, t := range tokens {
		s, err := cluster.TokenSecret(t, time.Now())
		if err != nil {
			return err
		}
		id := string(s.Data["token-id"])
		if err := f.would(out, "GET", s.Name, nil); err != nil {
			return err
		}
		have, err := cluster.HasToken(ctx, c, id)
		if err != nil {
			return err
		}
		if have {
			return fmt.Errorf("a token with id %q already exists: choose another, or delete it with `kbuild token delete %s`", id, id)
		}
		if f.dryRun {
			fmt.Fprintln(out, "[dryrun] The GET request didn't yield any result, the API Server returned a NotFound error.")
			err = f.would(out, "CREATE", "", s)
		} else {
			err = cluster.CreateToken(ctx, c, s)
		}
		if err != nil {
			return err
		}
	}
	_, err = out.Write(printed)
	return err
}

// joinUserdata is the user-data of a machine that joins the cluster of a
// kubeconfig's current context: a worker, or with a key a control plane.
func joinUserdata(kc *api.Config, token, key config.Secret) ([]byte, error) {
	current, ok := kc.Contexts[kc.CurrentContext]
	if !ok || kc.Clusters[current.Cluster] == nil {
		return nil, fmt.Errorf("cannot write user-data: the kubeconfig's current context %q names no cluster", kc.CurrentContext)
	}
	c := kc.Clusters[current.Cluster]
	server, err := url.Parse(c.Server)
	if err != nil || server.Host == "" || strings.Trim(server.Path, "/") != "" {
		return nil, fmt.Errorf("cannot write user-data: the kubeconfig's server %q is not an address that nodes can join through: want https://HOST:PORT", c.Server)
	}
	ca := c.CertificateAuthorityData
	if len(ca) == 0 {
		if c.CertificateAuthority == "" {
			return nil, errors.New("cannot write user-data: the kubeconfig holds no certificate authority, so a node could not verify the API server")
		}
		if _, ca, err = readInput(c.CertificateAuthority, nil); err != nil {
			return nil, err
		}
	}
	m := identity.Metadata{Role: config.RoleWorker, Endpoint: server.Host, Token: token, CertificateKey: key}
	if key != "" {
		m.Role = config.RoleControlPlane
	}
	if m.CACertHashes, err = pki.Pins(ca); err != nil {
		return nil, fmt.Errorf("cannot use the kubeconfig's certificate authority: %w", err)
	}
	return m.Marshal()
}
