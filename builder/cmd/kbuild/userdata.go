package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/identity"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/config"
)

// volumeFormat is the only format that is a file system.
const volumeFormat = "nocloud-iso"

func userdataFormats() []string {
	return []string{"yaml", "cloud-config", "ignition", volumeFormat, "smbios"}
}

func clusterUserdataCommand() *cobra.Command {
	var open openFlags
	var out outFlags
	var role, node, format, platform string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "userdata NAME --role ROLE",
		Short: "Print the user-data of a machine of the cluster",
		Long: `Print the user-data of a machine of the cluster in directory NAME. One machine
is the init node. Only its user-data holds the keys of the certificate
authorities: give it to no other machine, and delete it from the platform once
the machine is up. All workers are given the same user-data, and so are all
further control planes, unless --node names them.

Formats (--format):
  yaml          the documents that a node reads
  cloud-config  the same, for machines that also run cloud-init
  ignition      an Ignition config with the file /etc/kbuild/user-data
  nocloud-iso   a volume (label cidata) to attach to the machine; needs --out
  smbios        the SMBIOS string for QEMU and other VMMs:
                -smbios type=11,value=…

--platform checks that the user-data is not too large for the platform: ` + strings.Join(identity.Platforms(), ", ") + `.

The token that machines join with never expires unless --token-ttl is given.
With it, the token expires that long after the init node has created it, and
machines that boot later, such as those that a scaling group adds next month,
cannot join. When all machines have joined, delete it with 'kbuild token
delete'. Further control planes also need the certificates that the init node
uploads, encrypted. As with kubeadm, these expire after two hours, so power
further control planes on together with the init node.`,
		Example: `  kbuild cluster userdata prod --role init --node cp1 --platform aws
  kbuild cluster userdata prod --role control-plane --out cp.yaml
  kbuild cluster userdata prod --role worker --format ignition
  kbuild cluster userdata prod --role init --node cp1 --format nocloud-iso --out cp1.iso
  qemu-system-x86_64 … -smbios type=11,value=$(kbuild cluster userdata prod --role worker --format smbios)`,
		Args: cli.OneArg("the cluster's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(userdataFormats(), format) {
				return cli.Usagef("--format is %q: use %s", format, strings.Join(userdataFormats(), ", "))
			}
			switch {
			case role == "":
				return cli.Usagef("--role is missing: use init for the first machine, control-plane or worker for the others")
			case cmd.Flags().Changed("token-ttl") && role != string(config.RoleInit):
				return cli.Usagef("--token-ttl is only for --role init: that node creates the token")
			case ttl < 0:
				return cli.Usagef("--token-ttl must not be negative: use a duration such as 48h, or 0s for a token that never expires")
			case platform != "" && !slices.Contains(identity.Platforms(), platform):
				return cli.Usagef("kbuild does not know the user-data limit of platform %q: use one of %s", platform, strings.Join(identity.Platforms(), ", "))
			case format == volumeFormat && out.file == "":
				return cli.Usage(errors.New("--out is missing: name the file for the volume, as in --out " + role + ".iso"))
			case format == volumeFormat && platform != "":
				return cli.Usagef("--platform does not apply to --format nocloud-iso: a volume has no size limit")
			}
			if err := out.check(); err != nil {
				return err
			}
			d, err := open.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			docs, err := d.UserData(config.Role(role), node, ttl)
			if _, wrong := errors.AsType[identity.SpecError](err); wrong {
				return cli.Usage(err)
			}
			if err != nil {
				return err
			}
			if format == volumeFormat {
				return identity.Volume(out.file, map[string][]byte{"user-data": docs, "meta-data": identity.MetaData(d.Name(), role, node)})
			}
			b, err := wrap(format, docs)
			if err != nil {
				return err
			}
			if platform != "" {
				says, err := identity.Fits(platform, b)
				if err != nil {
					return cli.Usage(err)
				}
				fmt.Fprintln(cmd.ErrOrStderr(), says)
			}
			return out.write(cmd, b)
		},
	}
	open.add(cmd)
	out.add(cmd)
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "role of the machine: init, control-plane or worker (required)")
	f.StringVar(&node, "node", "", "name of the node (default: its host name)")
	f.StringVar(&format, "format", "yaml", "format: "+strings.Join(userdataFormats(), ", "))
	f.StringVar(&platform, "platform", "", "check the size against the limit of this platform")
	f.DurationVar(&ttl, "token-ttl", 0, "how long the token is valid after the init node has created it; 0s: it never expires")
	return cmd
}

// wrap puts user-data into a format.
func wrap(format string, docs []byte) ([]byte, error) {
	switch format {
	case "cloud-config":
		return identity.CloudConfig(docs), nil
	case "ignition":
		return identity.Ignition(docs)
	case "smbios":
		return identity.SMBIOS(docs), nil
	}
	return docs, nil
}
