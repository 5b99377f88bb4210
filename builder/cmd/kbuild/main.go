// Command kbuild turns a Kubernetes version into an immutable node image, creates
// the user-data with which machines become a cluster, and upgrades its nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(Execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// exitInterrupted is how shells report Ctrl-C.
const exitInterrupted = 130

// Execute runs the command line args (without the program's name) and returns
// the exit code. Results go to stdout, progress and errors to stderr.
func Execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return cli.ExitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "kbuild: interrupted")
		return exitInterrupted
	}
	return cli.Report(stderr, cmd, err)
}

func rootCommand() *cobra.Command {
	root := cli.Root(&cobra.Command{
		Use:   "kbuild",
		Short: "Build immutable Kubernetes node images",
		Long: `Build immutable Kubernetes node images, prepare clusters of such nodes, and
upgrade them.

Exit codes: 0 done; 1 failed; 2 the command line, or a file that it names, is
wrong, and nothing was done; 130 interrupted.`,
	})
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"build", "Build images:", []*cobra.Command{planCommand(), imageCommand(), imagesCommand(), pushCommand()}},
		{"cluster", "Prepare clusters:", []*cobra.Command{clusterCommand(), tokenCommand()}},
		{"operate", "Operate clusters:", []*cobra.Command{upgradeCommand(), resetCommand()}},
		{"tools", "Tools:", []*cobra.Command{versionCommand(), versionsCommand(), treeCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("tools")
	root.SetCompletionCommandGroupID("tools")
	addVersionFlag(root)
	return root
}
