package main

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/docs"
)

// Every kbuild-firstboot command in the documents is one that it takes.
func TestDocsCommands(t *testing.T) {
	all, err := docs.Read("../../..")
	if err != nil {
		t.Fatal(err)
	}
	commands, err := docs.Commands(all, "kbuild-firstboot")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if err := c.Check(rootCommand()); err != nil {
			t.Errorf("%v\n%s", err, strings.Join(c.Args, " "))
		}
	}
	t.Logf("%d commands", len(commands))
	if len(commands) < 15 {
		t.Errorf("only %d commands: are the documents read right?", len(commands))
	}
}
