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
	f.StringVar(&s.Version, "version", "", "Kubernetes version, as in v1.19.12")
	f.StringVar(&s.Source, "source", "modules", "where components come from: modules (compile them), release (download them) or dir:PATH")
	f.StringVar(&s.Arch, "arch", "amd64", "architecture of the nodes")
	f.StringVar(&s.CNI, "cni", "flannel", "pod network to bake: flannel or none")
	f.StringSliceVar(&s.Formats, "format", []string{"raw"}, "what to write: raw and qcow2 (disks), ignition (system extension and config)")
	f.StringVar(&s.Config, "config", "", "`file` with kubeadm configuration to bake into the image; user-data overrides it")
	f.StringArrayVar(&s.Manifests, "manifest", nil, "`file` with manifests to bake, which the init node applies; their images are baked, too (may be repeated)")
	f.StringSliceVar(&s.Include, "include-image", nil, "further container `image` to bake (may be repeated)")
	f.StringVar(&s.Registry, "image-repository", "", "image repository in place of the version's default registry")
	f.StringArrayVar(&s.Cmdline, "cmdline", nil, "further kernel parameters (may be repeated)")
	f.StringVar(&s.SysextURL, "sysext-url", "", "with --format ignition: `URL` where machines download sysext.raw")
	f.StringVar(&s.Butane, "butane", "", "with --format ignition: `file` with a Butane config, of any variant, to merge; its settings take precedence")
	f.StringVar(&s.SignKey, "sign-key", "", "`file` with the private key (PEM, Ed25519) that signs the update; nodes of this image trust it")
	f.StringArrayVar(&s.UpdateKeys, "update-key", nil, "`file` with a further public key (PEM, Ed25519) that nodes of this image accept updates from (may be repeated)")
	f.StringVar(&s.SecureBootKey, "secure-boot-key", "", "`file` with the private key (PEM) that signs boot loader and kernel for Secure Boot")
	f.StringVar(&s.SecureBootCert, "secure-boot-cert", "", "`file` with its certificate (PEM), which the machines' firmware trusts")
	f.BoolVar(&s.UnsignedUpdates, "allow-unsigned-updates", false, "nodes of this image accept unsigned updates")
	f.DurationVar(&s.TrialLimit, "trial-limit", builder.DefaultTrialLimit, "how long after booting into this image, as an update, a node may take to become healthy")
	f.IntVar(&s.TrialBoots, "trial-boots", builder.DefaultTrialBoots, "how many times a node boots this image, as an update, without becoming healthy before it falls back to the old one")
	f.StringArrayVar(&s.Checks, "check", nil, "program to bake that must exit with 0 before a node keeps this image as an update (may be repeated)")
	f.StringVar(&s.Lock, "lock", "", "`file` manifest.json of an earlier image: fail unless the base OS has the same packages")
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
		Long: `Print the plan: every component with its version, source and module sum, every
path that kbuild adds to the base OS and what it holds, the partitions with their
GUIDs, the kernel command line and the outputs. Nothing is downloaded or written,
and the same inputs give the same bytes. What is in your own files is shown by
its digest.`,
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

Outputs in --out: the disk in each --format; the update files (update.json, and
root.erofs, root.verity and uki.efi, prefixed with version and root hash);
manifest.json, which lists all that is inside; an SBOM (CycloneDX); SHA256SUMS.
Serve the directory with any HTTP server, and nodes of an earlier image can
upgrade from it, if that image was built with the same --sign-key, or with its
public half as --update-key.

--format ignition is for an operating system that boots with Ignition (Flatcar,
Fedora CoreOS and others with systemd 254 or newer, glibc 2.38 or newer and a
kernel with dm-verity and erofs). It writes sysext.raw, a verified system
extension with kubelet, container runtime and container images; node.bu, a
Butane config that installs and starts it; and node.ign, the Ignition config made
from node.bu. Host sysext.raw where the machines can download it, and give its
address with --sysext-url. Ignition accepts no relative address, so without the
flag node.ign holds a placeholder. Put user-data into your own config, as the
file /etc/credstore/kbuild.userdata. A Butane config given with --butane is
merged, and its settings take precedence; files that it names with "local" are
read from its own directory. Your Ignition config can also merge node.ign by its
URL.`,
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
	if err == nil && p.Want.Release.Unseen {
		fmt.Fprintf(stderr, "Kubernetes %s is newer than this kbuild: the versions of its parts are read from its own module; what else it may have changed is not known\n", p.Want.Release.Version)
	}
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
