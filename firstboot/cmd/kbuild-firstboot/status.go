package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/slot"
)

// errNotSo: the answer was given, and it is no.
var errNotSo = errors.New("not all steps hold")

// outputFlag adds -o text|json.
func outputFlag(cmd *cobra.Command, o *string) {
	cmd.Flags().StringVarP(o, "output", "o", "text", "text or json")
}

// printAs writes v as JSON, or by text, as asked.
// The commands check o before they work.
func printAs(w io.Writer, o string, v any, text func(*tabwriter.Writer)) error {
	switch o {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "text":
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		text(t)
		return t.Flush()
	}
	return checkOutput(o)
}

func checkOutput(o string) error {
	if o != "text" && o != "json" {
		return usageError{fmt.Errorf("unknown output %q: want -o text or -o json", o)}
	}
	return nil
}

func statusCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the last run goes or went, and what it waits for",
		Long: `Tell how the last run since boot goes or went: each step, how long it took,
and what one that waits is waiting for. The exit code is 0 when every step
held, else 1.`,
		Example: `  kbuild-firstboot status
  kbuild-firstboot status -o json | jq .why`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o); err != nil {
				return err
			}
			r, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			s, err := converge.ReadStatus(r.Host)
			if err != nil {
				return err
			}
			err = printAs(cmd.OutOrStdout(), o, s, func(w *tabwriter.Writer) { statusText(w, r, s) })
			if err == nil && s.State != converge.StateDone {
				return errNotSo
			}
			return err
		},
	}
	outputFlag(cmd, &o)
	return cmd
}

func statusText(w *tabwriter.Writer, r *node.Machine, s converge.Status) {
	fmt.Fprintf(w, "Kubernetes %s: %s\n", r.Baked.Release.Version, s.Summary())
	if !s.Started.IsZero() {
		end := s.Ended
		if end.IsZero() {
			end = r.Host.Now()
		}
		fmt.Fprintf(w, "begun %s, %s\n", s.Started.Local().Format(time.DateTime), end.Sub(s.Started).Round(100*time.Millisecond))
	}
	if rec, err := slot.ReadRecord(r.Host); err == nil && rec.Outcome == slot.FellBack {
		fmt.Fprintf(w, "the update to %s of %s fell back: %s\n", rec.Update.Release.Version, rec.Ended.Local().Format(time.DateTime), firstLine(rec.Why()))
	}
	fmt.Fprintln(w)
	for _, st := range s.Steps {
		took := ""
		if st.State != converge.StepPending && st.State != converge.StepSkipped {
			took = fmt.Sprintf("%.1fs", st.Seconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", st.Name, st.State, took, firstLine(st.Why))
	}
	if len(s.Sources) == 0 {
		return
	}
	fmt.Fprintln(w, "\nConfiguration, by where it came from:")
	bySource := map[string][]string{}
	for value, source := range s.Sources {
		bySource[source] = append(bySource[source], value)
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		values := bySource[source]
		slices.Sort(values)
		for i, v := range values {
			if i > 0 {
				source = ""
			}
			fmt.Fprintf(w, "%s\t%s\n", source, v)
		}
	}
}

// firstLine is a reason's first line; what follows is in the journal and in
// -o json.
func firstLine(s string) string {
	line, rest, _ := strings.Cut(s, "\n")
	if rest != "" {
		line += " …"
	}
	return line
}

func versionCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell what this image is",
		Example: `  kbuild-firstboot version
  kbuild-firstboot version -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o); err != nil {
				return err
			}
			r, err := open(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			b := r.Baked
			return printAs(cmd.OutOrStdout(), o, b, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "kbuild\t%s\nKubernetes\t%s\nsource\t%s\npod network\t%s\n", b.Kbuild, b.Release.Version, b.Source, b.CNI)
			})
		},
	}
	outputFlag(cmd, &o)
	return cmd
}
