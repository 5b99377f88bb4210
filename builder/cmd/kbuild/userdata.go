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

// volumeFormat is the one format that is a file system.
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
		Short: "Print what to give a machine of the cluster",
		Long: `Print the user-data of a machine of the cluster in directory NAME. One machine
is the init node, and only its user-data holds the keys of the authorities:
give it to nobody else, and see that the platform does not keep it longer than
needed. Workers, and further control planes, are given the same user-data each,
unless --node names them.

Formats (--format):
  yaml          the documents that a node reads
  cloud-config  the same, for machines that run cloud-init, too
  ignition      an Ignition config with the file /etc/kbuild/user-data
  nocloud-iso   a volume (label cidata) to attach to the machine; needs --out
  smbios        the SMBIOS string for QEMU and other VMMs:
                -smbios type=11,value=…

--platform checks that the platform takes user-data of this size, as it counts
it: ` + strings.Join(identity.Platforms(), ", ") + `.

The token by which machines join lives for ever unless --token-ttl limits it.
Its time begins when the init node makes it, and a machine that comes later, be
it slow or one that a scaling group starts next month, could not join any more.
When all have joined, 'kbuild token delete' ends it. Further control planes
need, besides, the certificates that the init node uploads encrypted; these are
there for two hours, as kubeadm has it, so power them on with the init node.`,
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
				return cli.Usagef("--role is missing: use init for one machine, control-plane or worker for the others")
			case cmd.Flags().Changed("token-ttl") && role != string(config.RoleInit):
				return cli.Usagef("--token-ttl is for --role init: that node makes the token")
			case ttl < 0:
				return cli.Usagef("--token-ttl is less than no time: use a duration such as 48h, or 0s for ever")
			case platform != "" && !slices.Contains(identity.Platforms(), platform):
				return cli.Usagef("no limit is known of platform %q: known are %s", platform, strings.Join(identity.Platforms(), ", "))
			case format == volumeFormat && out.file == "":
				return cli.Usage(errors.New("--out is missing: name the file for the volume, as in --out " + role + ".iso"))
			case format == volumeFormat && platform != "":
				return cli.Usagef("--platform is for user-data that a platform hands over; a volume has no such limit")
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
	f.DurationVar(&ttl, "token-ttl", 0, "how long the token lives once the init node is up; 0s is for ever")
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
