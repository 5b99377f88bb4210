package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// OutputFlag adds -o to cmd, which sets *format to one of formats. The first is
// the default; any other value is the caller's mistake.
func OutputFlag(cmd *cobra.Command, format *string, formats ...string) {
	*format = formats[0]
	cmd.Flags().VarP(&output{format, formats}, "output", "o", "output format: "+oneOf(formats))
}

// output is the value of -o.
type output struct {
	format  *string
	formats []string
}

func (o *output) String() string { return *o.format }
func (o *output) Type() string   { return "string" }

func (o *output) Set(s string) error {
	if !slices.Contains(o.formats, s) {
		return fmt.Errorf("use %s", oneOf(o.formats))
	}
	*o.format = s
	return nil
}

// oneOf is a list in words: "text, json or yaml".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// Print writes v in the format json or yaml, with the names of its JSON tags,
// and in any other by text.
func Print(w io.Writer, format string, v any, text func(io.Writer) error) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return text(w)
}

// Table is text for Print: rows writes lines whose cells end in tabs, and they
// are aligned in columns.
func Table(rows func(io.Writer)) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		rows(tw)
		return tw.Flush()
	}
}
