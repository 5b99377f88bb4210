package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

func imagesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List and pull the container images of a Kubernetes version",
	}
	cmd.AddCommand(imagesListCommand(), imagesPullCommand())
	return cli.Group(cmd)
}

// imageFlags say which images are meant.
type imageFlags struct {
	version, config, repository string
}

func (f *imageFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.version, "version", "", "Kubernetes version, as in v1.19.12 (required)")
	cmd.Flags().StringVar(&f.config, "config", "", "kubeadm config `file` whose ClusterConfiguration is used; - is standard input")
	cmd.Flags().StringVar(&f.repository, "image-repository", "", "image repository in place of the version's default registry")
}

// read resolves the flags. All its errors are the caller's mistakes.
func (f *imageFlags) read(cmd *cobra.Command) (images.Release, []string, error) {
	if f.version == "" {
		return images.Release{}, nil, cli.Usagef("--version is missing: name the Kubernetes version, as in --version v1.19.12")
	}
	r, err := images.Lookup(f.version)
	if err != nil {
		return r, nil, cli.Usage(err)
	}
	var c images.ListConfig
	if f.config != "" {
		name, b, err := readInput(f.config, cmd.InOrStdin())
		if err != nil {
			return r, nil, cli.Usage(err)
		}
		if c, err = images.ParseListConfig(r, name, b); err != nil {
			return r, nil, cli.Usage(err)
		}
	}
	if f.repository != "" {
		if c.ImageRepository != "" && c.ImageRepository != f.repository {
			return r, nil, cli.Usagef("--image-repository is %s, but %s says imageRepository: %s: remove one of them", f.repository, f.config, c.ImageRepository)
		}
		c.ImageRepository = f.repository
	}
	list, err := images.List(r, c)
	return r, list, cli.Usage(err)
}

// readInput reads a file; "-" is standard input. It returns the name to use in
// errors.
func readInput(path string, stdin io.Reader) (string, []byte, error) {
	if path == "-" {
		b, err := io.ReadAll(stdin)
		if err != nil {
			return "", nil, fmt.Errorf("cannot read standard input: %w", err)
		}
		return "standard input", b, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the config: %w", err)
	}
	return path, b, nil
}

func imagesListCommand() *cobra.Command {
	var f imageFlags
	var format string
	cmd := &cobra.Command{
		Use:   "list --version VERSION",
		Short: "Print the images that a cluster of this version needs",
		Long: `Print the images that a cluster of this version needs: exactly what
'kubeadm config images list' of that version prints for the same config, in
text, json and yaml.

Where --config names a kubernetesVersion, that one decides the tags of the
Kubernetes components, as in kubeadm; --version is kubeadm's own version.
Nothing is looked up in the network.`,
		Example: `  kbuild images list --version v1.19.12
  kbuild images list --version v1.37.2 --config cluster.yaml -o json
  kbuild images list --version v1.20.15 --image-repository registry.example.com/k8s`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, list, err := f.read(cmd)
			if err != nil {
				return err
			}
			return printList(cmd.OutOrStdout(), format, r, list)
		},
	}
	f.add(cmd)
	cli.OutputFlag(cmd, &format, "text", "json", "yaml")
	return cmd
}

// printList writes list as kubeadm of release r does.
func printList(w io.Writer, format string, r images.Release, list []string) error {
	// The order of fields is kubeadm's: by declaration in JSON, by name in YAML.
	out := struct {
		Kind       string   `json:"kind"`
		APIVersion string   `json:"apiVersion"`
		Images     []string `json:"images"`
	}{"Images", "output.kubeadm.k8s.io/" + r.OutputAPI, list}
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "    ")
		return e.Encode(out)
	case "yaml":
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		e.CompactSeqIndent()
		return e.Encode(map[string]any{"apiVersion": out.APIVersion, "images": out.Images, "kind": out.Kind})
	}
	_, err := fmt.Fprintln(w, strings.Join(list, "\n"))
	return err
}
