package docs

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"mvdan.cc/sh/v3/syntax"
)

// Command is a command that a document shows.
type Command struct {
	At   string   // file:line
	Args []string // its words; what only a shell could expand reads "…"
	// Mention is true for a command in running text: it may leave out what
	// it needs, and show a flag without its value.
	Mention bool
}

var span = regexp.MustCompile("`([^`]+)`")

// Commands are the commands that the documents show, in blocks and in running
// text, whose program is name.
func Commands(documents []Document, name string) ([]Command, error) {
	var all []Command
	for _, d := range documents {
		for _, b := range d.Blocks {
			if b.Lang != "sh" {
				continue
			}
			cs, err := parseShell(b)
			if err != nil {
				return nil, err
			}
			all = append(all, cs...)
		}
		for _, m := range span.FindAllStringSubmatchIndex(d.Prose, -1) {
			if args := strings.Fields(d.Prose[m[2]:m[3]]); len(args) > 1 {
				n := 1 + strings.Count(d.Prose[:m[0]], "\n")
				all = append(all, Command{At: fmt.Sprintf("%s:%d", d.File, n), Args: args, Mention: true})
			}
		}
	}
	var named []Command
	for _, c := range all {
		if c.Args[0] == name {
			named = append(named, c)
		}
	}
	return named, nil
}

// parseShell lists the commands of a block, those in $(…) too.
func parseShell(b Block) ([]Command, error) {
	file, err := syntax.NewParser().Parse(strings.NewReader(b.Text), b.File)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.At(), err)
	}
	var all []Command
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		c := Command{At: fmt.Sprintf("%s:%d", b.File, b.Line+int(call.Pos().Line())-1)}
		for _, w := range call.Args {
			c.Args = append(c.Args, literal(w.Parts))
		}
		all = append(all, c)
		return true
	})
	return all, nil
}

// literal is what a shell makes of a word's parts.
func literal(parts []syntax.WordPart) string {
	s := ""
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			s += p.Value
		case *syntax.SglQuoted:
			s += p.Value
		case *syntax.DblQuoted:
			s += literal(p.Parts)
		default:
			s += "…"
		}
	}
	return s
}

// Check says what is wrong with a command of the program whose command tree is
// root: a subcommand or flag that there is not, a value of the wrong type, an
// argument too many or too few. Nothing is run.
func (c Command) Check(root *cobra.Command) error {
	cmd, rest, err := root.Find(c.Args[1:])
	if err != nil {
		return fmt.Errorf("%s: %w", c.At, err)
	}
	if c.Mention {
		return c.checkMention(cmd, rest)
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return fmt.Errorf("%s: %s: %w", c.At, cmd.CommandPath(), err)
	}
	if help, _ := cmd.Flags().GetBool("help"); help {
		return nil
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return fmt.Errorf("%s: %s: %w", c.At, cmd.CommandPath(), err)
	}
	return cmd.ValidateRequiredFlags()
}

func (c Command) checkMention(cmd *cobra.Command, rest []string) error {
	for _, w := range rest {
		var f *pflag.Flag
		name, _, _ := strings.Cut(w, "=")
		switch {
		case strings.HasPrefix(name, "--"):
			f = cmd.Flag(name[2:])
		case len(name) == 2 && name[0] == '-':
			f = cmd.Flags().ShorthandLookup(name[1:])
		case !cmd.HasSubCommands():
			continue // an argument or a flag's value
		}
		if f == nil {
			return fmt.Errorf("%s: %s has no %s", c.At, cmd.CommandPath(), w)
		}
	}
	return nil
}
