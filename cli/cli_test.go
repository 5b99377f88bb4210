package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestReport(t *testing.T) {
	var format string
	root := Root(&cobra.Command{Use: "prog"})
	sub := &cobra.Command{Use: "sub NAME", Args: OneArg("the name"), RunE: func(_ *cobra.Command, args []string) error {
		if args[0] == "wrong" {
			return fmt.Errorf("cannot do it: %w", Usage(errors.New("this name is wrong")))
		}
		return errors.New("it broke")
	}}
	OutputFlag(sub, &format, "text", "json", "yaml")
	root.AddCommand(sub)
	const help = "\nSee 'prog sub --help'.\n"
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"":              {ExitOK, ""},
		"nope":          {ExitUsage, "prog: unknown argument \"nope\" for prog\nSee 'prog --help'.\n"},
		"sub":           {ExitUsage, "prog: prog sub needs one argument: the name" + help},
		"sub a b":       {ExitUsage, "prog: prog sub needs one argument: the name" + help},
		"sub wrong":     {ExitUsage, "prog: cannot do it: this name is wrong" + help},
		"sub a --bogus": {ExitUsage, "prog: unknown flag: --bogus" + help},
		"sub a -o xml":  {ExitUsage, "prog: invalid argument \"xml\" for \"-o, --output\" flag: use text, json or yaml" + help},
		"sub a -o yaml": {ExitFailed, "prog: it broke\n"},
	} {
		var said strings.Builder
		root.SetArgs(strings.Fields(args))
		root.SetOut(io.Discard)
		cmd, err := root.ExecuteC()
		code := ExitOK
		if err != nil {
			code = Report(&said, cmd, err)
		}
		if code != want.code || said.String() != want.said {
			t.Errorf("%q: exit code %d, %q, want %d, %q", args, code, said.String(), want.code, want.said)
		}
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "": false} {
		cmd := &cobra.Command{}
		var asked bytes.Buffer
		cmd.SetIn(strings.NewReader(answer))
		cmd.SetErr(&asked)
		if err := Confirm(cmd, false, "Sure?"); (err == nil) != want || asked.String() != "Sure? [y/N] " {
			t.Errorf("answer %q: %v, asked %q", answer, err, asked.String())
		}
		if err := Confirm(cmd, true, "Sure?"); err != nil {
			t.Errorf("with --yes: %v", err)
		}
	}
}

func TestPrint(t *testing.T) {
	v := struct {
		Name string `json:"name"`
	}{"a<b"}
	for format, want := range map[string]string{"text": "as text", "json": "{\n  \"name\": \"a<b\"\n}\n", "yaml": "name: a<b\n"} {
		var out strings.Builder
		err := Print(&out, format, v, func(w io.Writer) error {
			_, err := io.WriteString(w, "as text")
			return err
		})
		if err != nil || out.String() != want {
			t.Errorf("%s: %q, %v, want %q", format, out.String(), err, want)
		}
	}
}
