package main

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

// version is what the image says of itself, and the Go that compiled this
// program: "go1.26.8".
type version struct {
	images.Baked
	Go string `json:"go"`
}

func versionCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this image",
		Long: `Print the versions of this image: of the kbuild that built it, of Go, and of
Kubernetes; where its components came from, and its pod network. -o json and
yaml print all that the image says of itself.`,
		Example: `  kbuild-firstboot version
  kbuild-firstboot version -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			v := version{m.Baked, runtime.Version()}
			return cli.Print(cmd.OutOrStdout(), o, v, cli.Table(func(w io.Writer) {
				fmt.Fprintf(w, "kbuild\t%s\nGo\t%s\nKubernetes\t%s\nSource\t%s\nPod network\t%s\n", v.Kbuild, v.Go, v.Release.Version, v.Source, v.CNI)
			}))
		},
	}
	cli.OutputFlag(cmd, &o, "text", "json", "yaml")
	return cmd
}
