package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

// version is what kbuild says of itself.
type version struct {
	Kbuild     string         `json:"kbuild"`
	Go         string         `json:"go"`         // that compiled kbuild: "go1.26.8"
	Platform   string         `json:"platform"`   // of kbuild: "linux/amd64"
	Kubernetes []images.Range `json:"kubernetes"` // that it can build, oldest first
}

func thisVersion() version {
	return version{builder.Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, builder.Versions()}
}

func (v version) text(w io.Writer) {
	first, last := v.Kubernetes[0], v.Kubernetes[len(v.Kubernetes)-1]
	fmt.Fprintf(w, "kbuild\t%s\nGo\t%s\nPlatform\t%s\nKubernetes\t%s\n", v.Kbuild, v.Go, v.Platform, first.Oldest+" to "+last.Newest+" (kbuild versions lists them)")
}

func versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of kbuild, and the Kubernetes versions that it can build",
		Long: `Print the version of kbuild and of the Go that compiled it, and the range of
Kubernetes versions that it can build. -o short prints kbuild's own version
alone.`,
		Example: `  kbuild version
  kbuild version -o json
  kbuild version -o short`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := thisVersion()
			if format == "short" {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), v.Kbuild)
				return err
			}
			return cli.Print(cmd.OutOrStdout(), format, v, cli.Table(v.text))
		},
	}
	cli.OutputFlag(cmd, &format, "text", "json", "yaml", "short")
	return cmd
}

// addVersionFlag has --version print what `kbuild version` does.
func addVersionFlag(root *cobra.Command) {
	var text strings.Builder
	v := thisVersion()
	cli.Table(v.text)(&text) // never fails
	root.Version = v.Kbuild
	root.SetVersionTemplate(text.String())
}
