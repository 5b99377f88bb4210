package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/cli"
)

// treeCommand makes the Debian trees that kbuild works with. Tests run QEMU from
// one of them.
func treeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tree os|tools|vm|debian",
		Short: "Make a Debian tree in the cache and print its directory",
		Long: `Make one of the Debian trees that kbuild works with, unless it is in the cache,
and print its directory. Do not change anything in it.

  os     the node's operating system, without Kubernetes
  tools  systemd-repart, ukify, mkfs.erofs, veritysetup: what makes disks
  vm     QEMU and UEFI firmware
  debian an ordinary Debian before its first boot, which tests set up with Ignition`,
		Example: `  kbuild tree vm
  ls $(kbuild tree os)/usr/bin`,
		ValidArgs: []string{"os", "tools", "vm", "debian"},
		Args:      cli.OneArg("os, tools, vm or debian"),
		Hidden:    true,
		RunE: func(cmd *cobra.Command, args []string) error {
			trees := map[string]func(context.Context, base.Config) (base.Tree, error){"os": base.OS, "tools": base.Tools, "vm": base.VM, "debian": base.Debian}
			get, ok := trees[args[0]]
			if !ok {
				return cli.Usagef("unknown tree %q: want os, tools, vm or debian", args[0])
			}
			if err := base.Reexec(); err != nil {
				return err
			}
			cache, err := source.CacheDir()
			if err != nil {
				return err
			}
			t, err := get(cmd.Context(), base.Config{Cache: cache, Log: progress.To(cmd.ErrOrStderr())})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t.Dir)
			return nil
		},
	}
}
