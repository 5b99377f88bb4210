package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

func tokenListCommand(f *tokenFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the bootstrap tokens of the cluster",
		Long: `List the bootstrap tokens of the cluster, as 'kubeadm token list' does. Their
secret parts are printed, too.`,
		Example: `  kbuild token list
  kbuild token list -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := f.connect()
			if err != nil {
				return err
			}
			if err := f.would(cmd.OutOrStdout(), "LIST", "", nil); err != nil {
				return err
			}
			secrets, err := cluster.TokenSecrets(cmd.Context(), c)
			if err != nil {
				return err
			}
			var tokens []config.BootstrapToken
			for _, s := range secrets {
				t, err := cluster.TokenFromSecret(&s)
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					continue
				}
				tokens = append(tokens, t)
			}
			return printTokens(cmd.OutOrStdout(), format, c, tokens)
		},
	}
	cli.OutputFlag(cmd, &format, "text", "json", "yaml")
	return cmd
}

// printTokens writes tokens as kubeadm of the cluster's version does.
func printTokens(w io.Writer, format string, c kubernetes.Interface, tokens []config.BootstrapToken) error {
	if format == "text" {
		for i, t := range tokens {
			// kubeadm writes each row by itself; only the first has the header
			// to be aligned with.
			tw := tabwriter.NewWriter(w, 10, 4, 3, ' ', 0)
			if i == 0 {
				fmt.Fprintln(tw, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
			}
			fmt.Fprintln(tw, tokenRow(t, time.Now()))
			if err := tw.Flush(); err != nil {
				return err
			}
		}
		return nil
	}
	if len(tokens) == 0 {
		return nil
	}
	outputAPI, err := outputAPI(c)
	if err != nil {
		return err
	}
	for i, t := range tokens {
		b, err := json.MarshalIndent(tokenObject{"BootstrapToken", outputAPI, t.Token, t.Description, t.Expires, t.Usages, t.Groups}, "", "    ")
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if format == "yaml" {
			if b, err = yaml.JSONToYAML(b); err != nil {
				return err
			}
			if i > 0 {
				b = append([]byte("---\n"), b...)
			}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// tokenObject is kubeadm's output.kubeadm.k8s.io BootstrapToken.
type tokenObject struct {
	Kind        string        `json:"kind"`
	APIVersion  string        `json:"apiVersion"`
	Token       config.Secret `json:"token"`
	Description string        `json:"description,omitempty"`
	Expires     *metav1.Time  `json:"expires,omitempty"`
	Usages      []string      `json:"usages,omitempty"`
	Groups      []string      `json:"groups,omitempty"`
}

func tokenRow(t config.BootstrapToken, now time.Time) string {
	none := func(s string) string {
		if s == "" {
			return "<none>"
		}
		return s
	}
	ttl, expires := "<forever>", "<never>"
	if t.Expires != nil {
		ttl, expires = duration.ShortHumanDuration(t.Expires.Sub(now)), t.Expires.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s\t%-9s\t%s\t%-22s\t%-56s\t%s", t.Token.Reveal(), ttl, expires,
		none(strings.Join(t.Usages, ",")), none(t.Description), none(strings.Join(t.Groups, ",")))
}

// outputAPI is the API version of what kubeadm of the cluster's version prints.
func outputAPI(c kubernetes.Interface) (string, error) {
	v, err := c.Discovery().ServerVersion()
	if err != nil {
		return "", fmt.Errorf("cannot ask the API server for its version: %w", err)
	}
	rel, err := images.Assume(v.GitVersion)
	if err != nil {
		return "", fmt.Errorf("cannot print what kubeadm of the cluster's version would: %w; -o text is the same for all", err)
	}
	return "output.kubeadm.k8s.io/" + rel.OutputAPI, nil
}

var tokenIDForm = regexp.MustCompile(`^[a-z0-9]{6}$`)

func tokenDeleteCommand(f *tokenFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete TOKEN…",
		Short: "Delete bootstrap tokens",
		Long: `End bootstrap tokens, each given by its ID (the six characters before the dot) or
whole. Nodes that have joined are not affected.`,
		Example: `  kbuild token delete abcdef`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("name at least one token, by its ID (`kbuild token list` shows them)")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids []string
			for _, a := range args {
				id := a
				if !tokenIDForm.MatchString(a) {
					var err error
					if id, err = cluster.TokenID(config.Secret(a)); err != nil {
						return cli.Usagef("%w, or its ID, the first six of them", err)
					}
				}
				ids = append(ids, id)
			}
			c, _, err := f.connect()
			if err != nil {
				return err
			}
			for _, id := range ids {
				if f.dryRun {
					err = f.would(cmd.OutOrStdout(), "DELETE", "bootstrap-token-"+id, nil)
				} else {
					err = cluster.DeleteToken(cmd.Context(), c, id)
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "bootstrap token %q deleted\n", id)
			}
			return nil
		},
	}
}
