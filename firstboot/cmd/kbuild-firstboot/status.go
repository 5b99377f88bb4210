package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/slot"
)

// errNotSo: the answer was given, and it is no.
var errNotSo = errors.New("not all steps hold")

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
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer m.Host.Root.Close()
			s, err := converge.ReadStatus(m.Host)
			if err != nil {
				return err
			}
			err = cli.Print(cmd.OutOrStdout(), o, s, cli.Table(func(w io.Writer) { statusText(w, m, s) }))
			if err == nil && s.State != converge.StateDone {
				return errNotSo
			}
			return err
		},
	}
	cli.OutputFlag(cmd, &o, "text", "json", "yaml")
	return cmd
}

func statusText(w io.Writer, m *node.Machine, s converge.Status) {
	fmt.Fprintf(w, "Kubernetes %s: %s\n", m.Baked.Release.Version, s.Summary())
	if !s.Started.IsZero() {
		end := s.Ended
		if end.IsZero() {
			end = m.Host.Now()
		}
		fmt.Fprintf(w, "begun %s, %s\n", s.Started.Local().Format(time.DateTime), end.Sub(s.Started).Round(100*time.Millisecond))
	}
	if rec, err := slot.ReadRecord(m.Host); err == nil && rec.Outcome == slot.FellBack {
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
