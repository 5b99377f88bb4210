package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/docs"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
)

// TestExamplesParse: every command that --help shows is one that kbuild takes,
// and each command shows how it is used.
func TestExamplesParse(t *testing.T) {
	shown, err := docs.Commands(docs.Examples(rootCommand()), "kbuild")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range shown {
		if err := c.Check(rootCommand()); err != nil {
			t.Errorf("%v\n%s", err, strings.Join(c.Args, " "))
		}
	}
	if len(shown) < 40 {
		t.Errorf("only %d commands in examples: are they read right?", len(shown))
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() && !cmd.HasExample() {
			t.Errorf("%s --help has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}

// notRun are examples that compile for minutes or need other machines or a
// terminal: TestExamplesParse is all that they get.
var notRun = []string{
	"kbuild push", "kbuild images pull", "kbuild tree", "kbuild upgrade diff", "kbuild upgrade apply", "kbuild reset",
	"kbuild cluster new prod --config cluster.yaml --encrypt", "kbuild plan --version v1.19.12 --source dir:",
}

// TestExamplesRun runs each line of each example, in a directory of its own
// that has the files that examples name. Of an image, the plan is made.
func TestExamplesRun(t *testing.T) {
	files := exampleFiles(t)
	exampleCluster(t)
	t.Setenv("KBUILD_CACHE", t.TempDir())
	t.Setenv("KEY", strings.Repeat("0f", 32))
	ran := 0
	for _, d := range docs.Examples(rootCommand()) {
		text := strings.ReplaceAll(d.Blocks[0].Text, "kbuild image --", "kbuild plan --")
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
			line = strings.Join(strings.Fields(line), " ")
			if slices.ContainsFunc(notRun, func(prefix string) bool { return strings.Contains(line, prefix) }) {
				continue
			}
			ran++
			t.Chdir(t.TempDir())
			for name, data := range files {
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(line, "cluster new") && strings.Contains(line, "prod") {
				mustKbuild(t, "cluster", "new", "prod", "--endpoint", "k8s.example.com:6443")
			}
			if err := runLine(t.Context(), line); err != nil {
				t.Errorf("%s: %s: %v", d.File, line, err)
			}
		}
	}
	t.Logf("%d lines", ran)
	if ran < 30 {
		t.Errorf("only %d lines were run", ran)
	}
}

// runLine runs a line as a shell does, and returns how any kbuild in it failed.
// Other programs read what is piped to them and do nothing.
func runLine(ctx context.Context, line string) error {
	prog, err := syntax.NewParser().Parse(strings.NewReader(line), "")
	if err != nil {
		return err
	}
	failed := make(chan error, 10)
	shell, err := interp.New(interp.StdIO(nil, io.Discard, io.Discard), interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc {
		return func(ctx context.Context, args []string) error {
			h := interp.HandlerCtx(ctx)
			if args[0] != "kbuild" {
				if h.Stdin != nil {
					io.Copy(io.Discard, h.Stdin)
				}
				return nil
			}
			var stderr strings.Builder
			if code := Execute(ctx, args[1:], strings.NewReader(""), h.Stdout, &stderr); code != cli.ExitOK {
				failed <- fmt.Errorf("exit code %d: %s", code, stderr.String())
			}
			return nil
		}
	}))
	if err != nil {
		return err
	}
	if err := shell.Run(ctx, prog); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// exampleFiles are those that examples name.
func exampleFiles(t *testing.T) map[string][]byte {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"calico.yaml":  []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: calico}\n"),
		"cluster.yaml": []byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"),
		"site.bu":      []byte("variant: fcos\nversion: 1.5.0\n"),
		"update.key":   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
}

// exampleCluster starts the API server of the cluster that examples are of.
func exampleCluster(t *testing.T) {
	t.Helper()
	c, kubeconfig := apiServer(t)
	addFleet(t, c)
	token, err := cluster.TokenSecret(config.BootstrapToken{Token: "abcdef.0123456789abcdef"}, time.Now())
	if err == nil {
		err = cluster.CreateToken(t.Context(), c, token)
	}
	if err != nil {
		t.Fatal(err)
	}
	kc, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	kc.Clusters["kubernetes"].CertificateAuthority = filepath.Join(newCluster(t), "pki", "ca.crt") // user-data pins it
	if err := clientcmd.WriteToFile(*kc, kubeconfig); err != nil {
		t.Fatal(err)
	}
}

// TestGroups: --help shows every command of kbuild in a group, but for tree,
// which is for tests.
func TestGroups(t *testing.T) {
	help := mustKbuild(t, "--help")
	for _, title := range []string{"Build images:", "Prepare clusters:", "Operate clusters:", "Tools:"} {
		if !strings.Contains(help, "\n"+title+"\n") {
			t.Errorf("--help has no group %q:\n%s", title, help)
		}
	}
	for _, cmd := range rootCommand().Commands() {
		shown := strings.Contains(help, "\n  "+cmd.Name()+" ")
		if cmd.GroupID == "" || shown == (cmd.Name() == "tree") {
			t.Errorf("command %s: group %q, in --help: %t", cmd.Name(), cmd.GroupID, shown)
		}
	}
}
