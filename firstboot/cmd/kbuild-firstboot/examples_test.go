package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/docs"
)

// TestExamplesParse: every command that --help shows is one that
// kbuild-firstboot takes, and each command shows how it is used.
func TestExamplesParse(t *testing.T) {
	shown, err := docs.Commands(docs.Examples(rootCommand()), "kbuild-firstboot")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range shown {
		if err := c.Check(rootCommand()); err != nil {
			t.Errorf("%v\n%s", err, strings.Join(c.Args, " "))
		}
	}
	if len(shown) < 20 {
		t.Errorf("only %d commands in examples: are they read right?", len(shown))
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() && !cmd.Hidden && !cmd.HasExample() {
			t.Errorf("%s --help has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}
