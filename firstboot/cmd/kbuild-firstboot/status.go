package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kbuild/kbuild/firstboot"
)

// errNotSo: the answer was given, and it is no.
var errNotSo = errors.New("not all steps hold")

// outputFlag adds -o text|json.
func outputFlag(cmd *cobra.Command, o *string) {
	cmd.Flags().StringVarP(o, "output", "o", "text", "text or json")
}

// print writes v as JSON, or by text, as asked.
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
	return usageError{fmt.Errorf("unknown output %q: want -o text or -o json", o)}
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
			r, err := open(*dir, slog.New(logHandler(cmd.ErrOrStderr())))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			s, err := firstboot.ReadStatus(r.Host)
			if err != nil {
				return err
			}
			err = printAs(cmd.OutOrStdout(), o, s, func(w *tabwriter.Writer) { statusText(w, r, s) })
			if err == nil && s.State != firstboot.StateDone {
				return errNotSo
			}
			return err
		},
	}
	outputFlag(cmd, &o)
	return cmd
}

func statusText(w *tabwriter.Writer, r *firstboot.Run, s firstboot.Status) {
	fmt.Fprintf(w, "Kubernetes %s: %s\n\n", r.Baked.Release.Version, s.Summary())
	for _, st := range s.Steps {
		fmt.Fprintf(w, "%s\t%s\t%.1fs\t%s\n", st.Name, st.State, st.Seconds, st.Why)
	}
}

// plannedStep is one line of the plan.
type plannedStep struct {
	Name  string `json:"name"`
	Holds bool   `json:"holds"`
	Why   string `json:"why,omitempty"` // why that cannot be told, or what is missing
}

func planCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Tell which steps hold already and which a run would do",
		Long: `Tell which steps hold already and which a run would do now. Nothing is changed.
A step that comes after one that does not hold often cannot tell yet.`,
		Example: `  kbuild-firstboot plan
  kbuild-firstboot plan -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := open(*dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer r.Host.Root.Close()
			var plan []plannedStep
			role := string("init")
			for _, s := range firstboot.List(role) {
				p := plannedStep{Name: s.Name}
				if r.Node == nil && s.Name != "metadata" && s.Name != "clock" {
					p.Why = "the node has no configuration yet"
				} else if p.Holds, err = s.Done(cmd.Context(), r); err != nil {
					p.Why = err.Error()
				}
				plan = append(plan, p)
			}
			return printAs(cmd.OutOrStdout(), o, plan, func(w *tabwriter.Writer) {
				for _, p := range plan {
					state := "to do"
					if p.Holds {
						state = "holds"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, state, p.Why)
				}
			})
		},
	}
	outputFlag(cmd, &o)
	return cmd
}

func versionCommand(dir *string) *cobra.Command {
	var o string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell what this image is",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
