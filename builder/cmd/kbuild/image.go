package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder"
	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images/pull"
)

// specFlags are the flags that `plan` and `image` share.
func specFlags(cmd *cobra.Command, s *builder.Spec) {
	f := cmd.Flags()
	f.StringVar(&s.Version, "version", "", "Kubernetes version, as v1.19.12")
	f.StringVar(&s.Source, "source", "modules", "where components come from: modules, release or dir:PATH")
	f.StringVar(&s.Arch, "arch", "amd64", "architecture of the nodes")
	f.StringVar(&s.CNI, "cni", "flannel", "pod network to bake: flannel or none")
	f.StringSliceVar(&s.Formats, "format", []string{"raw"}, "what to write: the disks raw and qcow2, ignition")
	f.StringVar(&s.Config, "config", "", "file with kubeadm kinds to bake; user-data is laid over it")
	f.StringArrayVar(&s.Manifests, "manifest", nil, "manifest to bake and apply at init; its images are baked too (may be repeated)")
	f.StringSliceVar(&s.Include, "include-image", nil, "further container image to bake (may be repeated)")
	f.StringVar(&s.Registry, "image-repository", "", "image repository instead of the version's own")
	f.StringArrayVar(&s.Cmdline, "cmdline", nil, "more kernel command line (may be repeated)")
	f.StringVar(&s.SysextURL, "sysext-url", "", "with --format ignition: `URL` at which you host sysext.raw for the machines")
	f.StringVar(&s.Butane, "butane", "", "with --format ignition: `file` with your own Butane config, of any variant, to merge")
	f.StringVar(&s.SignKey, "sign-key", "", "`file` with the private key (PEM, Ed25519) that signs the update; nodes of this image trust it")
	f.StringArrayVar(&s.UpdateKeys, "update-key", nil, "`file` with a further public key whose updates nodes of this image take (may be repeated)")
	f.StringVar(&s.SecureBootKey, "secure-boot-key", "", "`file` with the private key (PEM) that signs boot loader and kernel for Secure Boot")
	f.StringVar(&s.SecureBootCert, "secure-boot-cert", "", "`file` with its certificate (PEM), which the machines' firmware trusts")
	f.BoolVar(&s.UnsignedUpdates, "allow-unsigned-updates", false, "nodes of this image take updates that nobody signed")
	f.DurationVar(&s.TrialLimit, "trial-limit", builder.DefaultTrialLimit, "how long the first boots of this image as an update may take to be healthy")
	f.IntVar(&s.TrialBoots, "trial-boots", builder.DefaultTrialBoots, "how many first boots of this image as an update may fail before the old one is booted again")
	f.StringArrayVar(&s.Checks, "check", nil, "program to bake that must end well before this image is kept as an update (may be repeated)")
	f.StringVar(&s.Lock, "lock", "", "manifest.json of an earlier image: refuse other base packages")
	f.StringVar(&s.Out, "out", "out", "directory for the outputs")
}

// epoch reads SOURCE_DATE_EPOCH; zero where it is not set.
func epoch() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("cannot read SOURCE_DATE_EPOCH=%q: want seconds since 1970", v)
	}
	return time.Unix(n, 0).UTC(), nil
}

func planCommand() *cobra.Command {
	var s builder.Spec
	cmd := &cobra.Command{
		Use:   "plan --version V",
		Short: "Print what `kbuild image` would do, as JSON",
		Long: `Print the Plan: every component with its version, source and module sum, what
kbuild adds to the base OS, the partitions with their GUIDs, the kernel command
line and the outputs. Nothing is fetched or written, and the same flags give
the same bytes.`,
		Example: `  kbuild plan --version v1.19.12
  kbuild plan --version v1.19.12 --cni none | jq '.components[].name'`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, _, _, err := resolve(cmd.Context(), s, &builder.Env{}, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			return enc.Encode(p)
		},
	}
	specFlags(cmd, &s)
	return cmd
}

func imageCommand() *cobra.Command {
	var s builder.Spec
	var env builder.Env
	cmd := &cobra.Command{
		Use:   "image --version V",
		Short: "Build a bootable node image",
		Long: `Build a bootable, immutable node image: a UEFI disk with a verified read-only
root that holds kubelet, the container runtime and every container image of
the Kubernetes version, unpacked. A machine that boots it with user-data
becomes a node without any network.

Outputs in --out: the disk in each --format, the slot's update files
(update.json, and root.erofs, root.verity and uki.efi after a name of version and
root hash), manifest.json with everything that is inside, an SBOM (CycloneDX) and
SHA256SUMS. Nodes that run an earlier
image take the directory as an update from any HTTP server, where the earlier
image has the public half of the --sign-key (or --update-key) baked in.

--format ignition is for an operating system that boots with Ignition (Flatcar,
Fedora CoreOS and others with systemd 254 or newer, glibc 2.38 or newer and a
kernel with dm-verity and erofs). It writes sysext.raw, a verified system
extension with kubelet, container runtime and container images; node.bu, a
Butane config that brings it to a machine and starts it; and node.ign, the
Ignition config made from that. Host sysext.raw where the machines reach it and
name the place with --sysext-url: Ignition takes no relative address, so without
the flag node.ign names a place that does not exist. User-data is a file of your
own config, /etc/credstore/kbuild.userdata. A Butane config given with --butane
is merged and wins over ours; files that it names with "local" are looked for
in its own directory. An Ignition config may also merge node.ign, by its URL.`,
		Example: `  kbuild image --version v1.19.12
  kbuild image --version v1.19.12 --format raw,qcow2 --out build/v1.19.12
  kbuild image --version v1.19.12 --cni none --manifest calico.yaml
  openssl genpkey -algorithm ed25519 -out update.key
  kbuild image --version v1.20.15 --sign-key update.key
  kbuild image --version v1.19.12 --format ignition \
      --sysext-url https://images.example.com/v1.19.12/ --butane site.bu
  kbuild image --version v1.19.12 --source dir:/media/usb/v1.19.12`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := base.Reexec(); err != nil {
				return err
			}
			env.Log = progress.To(cmd.ErrOrStderr())
			p, in, src, err := resolve(cmd.Context(), s, &env, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return builder.Build(cmd.Context(), p, in, src, s.Out, env)
		},
	}
	specFlags(cmd, &s)
	cmd.Flags().StringVar(&env.Firstboot, "firstboot", beside("kbuild-firstboot"), "the kbuild-firstboot program to bake")
	cmd.Flags().BoolVar(&env.Force, "force", false, "replace outputs that exist")
	return cmd
}

// resolve opens the source that the Spec names and makes the Plan.
func resolve(ctx context.Context, s builder.Spec, env *builder.Env, stderr io.Writer) (*builder.Plan, *builder.Inputs, source.Source, error) {
	var err error
	if s.Epoch, err = epoch(); err != nil {
		return nil, nil, nil, cli.Usage(err)
	}
	if env.Cache, err = source.CacheDir(); err != nil {
		return nil, nil, nil, err
	}
	if s.Source == "" {
		s.Source = "modules"
	}
	src, err := source.Open(s.Source, source.Config{
		Cache: env.Cache,
		Epoch: s.Time(),
		Pull: func(ctx context.Context, refs []string, arch, dir string) error {
			_, err := pull.Pull(ctx, pull.Options{Images: refs, Dir: dir, Platform: "linux/" + arch, Report: pull.Lines(stderr)})
			return err
		},
	})
	if err != nil {
		return nil, nil, nil, cli.Usage(err)
	}
	p, in, err := builder.Resolve(ctx, s, src)
	if _, bad := errors.AsType[builder.BadSpec](err); bad {
		err = cli.Usage(err)
	}
	return p, in, src, err
}

// beside is the path of a program in the directory of this one.
func beside(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}
