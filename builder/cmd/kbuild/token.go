package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/config"
)

// adminConf is where a control-plane node has its administrator's kubeconfig.
const adminConf = "/etc/kubernetes/admin.conf"

// tokenFlags are those of every command that talks to the cluster.
type tokenFlags struct {
	kubeconfig string
	dryRun     bool
}

func tokenCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the bootstrap tokens of a running cluster",
		Long: `Manage the bootstrap tokens of a running cluster, made by kbuild or by kubeadm,
with the flags and the output of 'kubeadm token'. A machine that holds such a
token may join the cluster. A token is a Secret in kube-system, and consists of
a public ID and a secret part.`,
	}
	cmd.PersistentFlags().StringVar(&f.kubeconfig, "kubeconfig", "", kubeconfigUsage)
	cmd.PersistentFlags().BoolVar(&f.dryRun, "dry-run", false, "print what would be done, and change nothing")
	cmd.AddCommand(tokenCreateCommand(&f), tokenListCommand(&f), tokenDeleteCommand(&f), tokenGenerateCommand())
	// Old versions of kubeadm call it --experimental-output.
	cmd.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.TrimPrefix(name, "experimental-"))
	})
	return cli.Group(cmd)
}

func (f *tokenFlags) connect() (kubernetes.Interface, *api.Config, error) {
	return connect(f.kubeconfig)
}

// kubeconfigUsage is the help of --kubeconfig.
const kubeconfigUsage = "kubeconfig `file` of the cluster (default: $KUBECONFIG, ~/.kube/config or " + adminConf + ")"

// connect reads a kubeconfig, or the default one, and returns a client. No
// request is made yet.
func connect(file string) (kubernetes.Interface, *api.Config, error) {
	if file == "" {
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		rules.Precedence = append(rules.Precedence, adminConf)
		file = rules.GetDefaultFilename()
	}
	kc, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: file}).Load()
	if err != nil {
		return nil, nil, cli.Usagef("cannot use kubeconfig %s: %w: name another with --kubeconfig; `kbuild cluster kubeconfig` writes one", file, err)
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*kc, nil).ClientConfig()
	if err != nil {
		return nil, nil, cli.Usagef("cannot use kubeconfig %s: %w", file, err)
	}
	cfg.UserAgent = "kbuild"
	cfg.Timeout = time.Minute    // a server that goes down does not close its connections
	cfg.QPS, cfg.Burst = 50, 100 // many nodes are looked at at once
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, cli.Usagef("cannot use kubeconfig %s: %w", file, err)
	}
	return c, kc, nil
}

// would prints, as kubeadm does, what a dry run leaves out.
func (f *tokenFlags) would(w io.Writer, verb, name string, s *corev1.Secret) error {
	if !f.dryRun {
		return nil
	}
	fmt.Fprintf(w, "[dryrun] Would perform action %s on resource \"secrets\" in API group \"core/v1\"\n", verb)
	if name != "" {
		fmt.Fprintf(w, "[dryrun] Resource name: %q\n", name)
	}
	if s == nil {
		return nil
	}
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": s.Type, "data": s.Data,
		"metadata": map[string]any{"creationTimestamp": nil, "name": s.Name, "namespace": s.Namespace},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "[dryrun] Attached object:")
	for line := range strings.Lines(string(b)) {
		fmt.Fprint(w, "\t"+line)
	}
	return nil
}

func tokenGenerateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Print a new random token, without creating it in a cluster",
		Long: `Print a new random bootstrap token, for user-data or 'kbuild token create'. It is
not created in any cluster.`,
		Example: `  kbuild token create $(kbuild token generate)`,
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := config.NewToken(nil)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), t.Reveal())
			return err
		},
	}
}
