package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbuild/kbuild/docs"
)

// TestMain lets scripts run kbuild as a program of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kbuild": main})
}

func readDocs(t *testing.T) []docs.Document {
	t.Helper()
	all, err := docs.Read("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every kbuild command in the documents is one that this kbuild takes.
func TestDocsCommands(t *testing.T) {
	commands, err := docs.Commands(readDocs(t), "kbuild")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if err := c.Check(rootCommand()); err != nil {
			t.Errorf("%v\n%s", err, strings.Join(c.Args, " "))
		}
	}
	t.Logf("%d commands", len(commands))
	if len(commands) < 60 {
		t.Errorf("only %d commands: are the documents read right?", len(commands))
	}
}

// What the documents mark "run" is run by a shell, block after block, with the
// files that the same document shows.
func TestDocsRun(t *testing.T) {
	ran := 0
	for _, d := range readDocs(t) {
		script, files := "", ""
		for _, b := range d.Blocks {
			name, _, _ := strings.Cut(b.Mark, ":")
			switch {
			case b.Lang == "sh" && b.Mark == "run":
				script += "# " + b.At() + "\n" + b.Text
			case b.Lang == "yaml" && name != "":
				files += fmt.Sprintf("-- %s --\n%s", name, b.Text)
			}
		}
		if script == "" {
			continue
		}
		ran++
		file := filepath.Join(t.TempDir(), strings.NewReplacer("/", "-", ".md", "").Replace(d.File)+".txtar")
		text := "env KBUILD_CACHE=$WORK/.cache\nexec sh -eux .commands.sh\n-- .commands.sh --\n" + script + files
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		testscript.Run(t, testscript.Params{Files: []string{file}})
	}
	if ran < 4 {
		t.Errorf("only %d documents have commands that run", ran)
	}
}
