package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/identity"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/pki"
)

func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Prepare a cluster before its first machine is on",
		Long: `Prepare a cluster before its first machine is on: create its identity
(certificate authorities, token, configuration) in a directory, print the
user-data of each machine, and write an administrator's kubeconfig. The machines
can then be powered on at the same time and in any order, and join unattended.`,
	}
	cmd.AddCommand(clusterNewCommand(), clusterUserdataCommand(), clusterKubeconfigCommand())
	return cli.Group(cmd)
}

func clusterNewCommand() *cobra.Command {
	var s identity.Spec
	var file, format string
	var to []string
	var passphrase bool
	cmd := &cobra.Command{
		Use:   "new NAME --endpoint HOST:PORT",
		Short: "Create a cluster's identity in the new directory NAME",
		Long: `Create a cluster's identity in the new directory NAME: the certificate
authorities ca, etcd/ca and front-proxy-ca and the service-account key pair, with
kubeadm's subjects and validity; a bootstrap token; the key that encrypts
uploaded certificates; and the cluster's configuration in cluster.yaml, which may
be edited until the first machine is given its user-data.

Whoever can read the directory can administer the cluster. It is readable by you
alone; encrypt it if you keep or share it. With --encrypt-to, its secrets are
encrypted to age recipients (public keys), and later commands need --identity
FILE; with --encrypt, later commands ask for a passphrase. Both can be combined,
and age itself can decrypt the files.

The directory is created completely or not at all; an existing one is refused.`,
		Example: `  kbuild cluster new prod --endpoint k8s.example.com:6443
  kbuild cluster new prod --endpoint 192.0.2.10:6443 --version v1.19.12
  kbuild cluster new prod --config cluster.yaml --encrypt
  kbuild cluster new prod --endpoint k8s.example.com:6443 \
      --encrypt-to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: cli.OneArg("the directory to create"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Clean(args[0])
			if _, err := os.Lstat(dir); err == nil {
				return cli.Usagef("cannot create %s: %w: choose another name, or remove it if no machine was given user-data from it", dir, identity.ErrExists)
			}
			s.Name = filepath.Base(dir)
			if file != "" {
				name, b, err := readInput(file, cmd.InOrStdin())
				if err != nil {
					return cli.Usage(err)
				}
				s.Config = config.Document{Source: name, Data: b}
			}
			var secret config.Secret
			if passphrase {
				var err error
				if secret, err = newPassphrase(cmd); err != nil {
					return cli.Usage(err)
				}
			}
			lock, err := identity.NewLock(to, secret)
			if err != nil {
				return cli.Usage(err)
			}
			id, err := identity.New(cmd.Context(), s, time.Now())
			if _, wrong := errors.AsType[identity.SpecError](err); wrong {
				return cli.Usage(err)
			}
			if err != nil {
				return err
			}
			root, err := os.OpenRoot(filepath.Dir(dir))
			if err != nil {
				return fmt.Errorf("cannot create %s: %w", dir, err)
			}
			defer root.Close()
			h := &host.Host{Root: root, Log: slog.New(slog.DiscardHandler)}
			if err := identity.Create(h, filepath.Base(dir), id, lock); err != nil {
				return err
			}
			return printIdentity(cmd.OutOrStdout(), format, dir, id, passphrase || len(to) > 0)
		},
	}
	cmd.Flags().StringVar(&s.Endpoint, "endpoint", "", "where the cluster's API will be reached: a name or address, and a port if it is not 6443")
	cmd.Flags().StringVar(&s.Version, "version", "", "Kubernetes version of the nodes' images; images of other versions refuse the user-data (default: any version)")
	cmd.Flags().StringVar(&file, "config", "", "`file` with kubeadm's ClusterConfiguration, and KubeletConfiguration and KubeProxyConfiguration if wanted; - is standard input")
	cmd.Flags().StringArrayVar(&to, "encrypt-to", nil, "encrypt the secrets to this age `recipient`; may be repeated")
	cmd.Flags().BoolVar(&passphrase, "encrypt", false, "encrypt the secrets with a passphrase, which is asked for")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

// printIdentity prints what was created, without secrets.
func printIdentity(w io.Writer, format, dir string, id *identity.Identity, encrypted bool) error {
	pins, err := pki.Pins(id.PKI[pki.CA+".crt"])
	if err != nil {
		return err
	}
	made := struct {
		Directory    string   `json:"directory"`
		Endpoint     string   `json:"endpoint"`
		CACertHashes []string `json:"caCertHashes"`
		Encrypted    bool     `json:"encrypted"`
	}{dir, id.Endpoint, pins, encrypted}
	return cli.Print(w, format, made, func(w io.Writer) error {
		keep := "Its secrets are not encrypted: keep it private."
		if encrypted {
			keep = "Its secrets are encrypted."
		}
		_, err := fmt.Fprintf(w, `Created the identity of a cluster in %s. %s
endpoint  %s
CA        %s
Next: kbuild cluster userdata %s --role init
`, dir, keep, id.Endpoint, pins[0], dir)
		return err
	})
}

// openFlags say how a cluster's directory is opened.
type openFlags struct{ identity string }

func (f *openFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.identity, "identity", "", "age identity `file` that decrypts the secrets (default: ask for the directory's passphrase)")
}

func (f *openFlags) open(cmd *cobra.Command, dir string) (*identity.Dir, error) {
	d, err := identity.Open(filepath.Clean(dir), f.identity, func(what string) (config.Secret, error) {
		return askPassphrase(cmd, "Passphrase of "+what+": ")
	})
	return d, cli.Usage(err)
}

// outFlags say where something secret goes.
type outFlags struct {
	file  string
	force bool
}

func (f *outFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "out", "", "write to this `file`, readable by you alone, instead of standard output")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace --out if it exists")
}

// check refuses a file that exists, before any work is done.
func (f *outFlags) check() error {
	if f.file == "" || f.force {
		return nil
	}
	if _, err := os.Lstat(f.file); !errors.Is(err, fs.ErrNotExist) {
		return cli.Usagef("%s exists: name another --out, or replace it with --force", f.file)
	}
	return nil
}

// write writes b where it is wanted.
func (f *outFlags) write(cmd *cobra.Command, b []byte) error {
	if f.file == "" {
		_, err := cmd.OutOrStdout().Write(b)
		return err
	}
	if err := writeNew(f.file, b, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.file, err)
	}
	return nil
}
