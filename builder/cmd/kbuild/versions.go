package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
)

// minorVersion is what kbuild makes of one minor release of Kubernetes. What it
// says of parts is true of the newest patch release.
type minorVersion struct {
	Oldest      string   `json:"oldest"` // "v1.19.0"
	Newest      string   `json:"newest"` // "v1.19.16"
	SupportEnds string   `json:"supportEnds"`
	Etcd        string   `json:"etcd"`       // the image's tag: "3.4.13-0"
	CoreDNS     string   `json:"coreDNS"`    // the image's tag: "1.7.0"
	Pause       string   `json:"pause"`      // the image's tag: "3.2"
	Containerd  string   `json:"containerd"` // "v2.4.2", or "debian"
	ConfigAPIs  []string `json:"configAPIs"` // that its kubeadm reads, oldest first
	// Sources are the values of --source with which it can be built, and Pinned
	// the versions whose modules are pinned in kbuild itself.
	Sources []string `json:"sources"`
	Pinned  []string `json:"pinned"`
}

func minorVersions() ([]minorVersion, error) {
	pinned, err := source.Locked()
	if err != nil {
		return nil, err
	}
	var all []minorVersion
	for _, known := range slices.Backward(builder.Versions()) {
		r, err := images.Lookup(known.Newest)
		if err != nil {
			return nil, err
		}
		m := minorVersion{
			Oldest: known.Oldest, Newest: known.Newest, SupportEnds: known.Ends,
			Etcd: r.Etcd.Tag, CoreDNS: r.CoreDNS.Tag, Pause: r.Pause.Tag, Containerd: "debian",
			ConfigAPIs: r.ConfigAPIs, Sources: []string{"modules", "release", "dir"}, Pinned: []string{},
		}
		if v := source.Containerd(r); v != "" {
			m.Containerd = v
		}
		for _, p := range pinned {
			if rel, err := images.Lookup(p); err == nil && rel.Minor() == r.Minor() {
				m.Pinned = append(m.Pinned, p)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

func versionsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "versions",
		Short: "List the Kubernetes versions that kbuild can build, newest first",
		Long: `List the Kubernetes versions that kbuild can build, newest first: of each minor
release the newest patch release that this kbuild knows, the parts that go with
it, the versions of kubeadm's config API that its nodes read as they are, and
the month in which upstream's support ends.

Every patch release up to that one can be built. PINNED names those whose
modules are pinned in kbuild itself; for others the pins are made when they are
built, against Go's checksum database.`,
		Example: `  kbuild versions
  kbuild versions -o json`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := minorVersions()
			if err != nil {
				return err
			}
			return cli.Print(cmd.OutOrStdout(), format, all, cli.Table(func(w io.Writer) {
				fmt.Fprintln(w, "KUBERNETES\tETCD\tCOREDNS\tPAUSE\tCONTAINERD\tCONFIG API\tSUPPORT ENDS\tPINNED")
				for _, m := range all {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Newest, m.Etcd, m.CoreDNS, m.Pause, m.Containerd, strings.Join(m.ConfigAPIs, ","), m.SupportEnds, strings.Join(m.Pinned, ","))
				}
			}))
		},
	}
	cli.OutputFlag(cmd, &format, "text", "json", "yaml")
	return cmd
}
