package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/kbuild/kbuild/builder/fleet"
)

// view shows what happens to the nodes: as a table that changes in place on a
// terminal, else one line a change, or as JSON lines.
type view struct {
	out   io.Writer
	json  bool
	width int // of the terminal; 0 where there is none

	mu    sync.Mutex
	rows  []viewRow
	drawn int // lines
}

type viewRow struct {
	version string
	fleet.Event
}

func newView(out io.Writer, format string) *view {
	v := &view{out: out, json: format == "json"}
	if f, ok := out.(*os.File); ok && !v.json && term.IsTerminal(int(f.Fd())) {
		v.width = 80
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			v.width = w
		}
	}
	return v
}

// node adds a node to the table before anything happens to it.
func (v *view) node(name, version string) {
	v.rows = append(v.rows, viewRow{version, fleet.Event{Node: name}})
}

func (v *view) report(e fleet.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.json:
		v.line(e)
	case v.width > 0:
		i := slices.IndexFunc(v.rows, func(r viewRow) bool { return r.Node == e.Node })
		if i < 0 {
			i = len(v.rows)
			v.rows = append(v.rows, viewRow{})
		}
		v.rows[i].Event = e
		v.draw()
	default:
		for line := range strings.Lines(e.Message) {
			fmt.Fprintf(v.out, "%s %s: %s: %s\n", e.Time.Format(time.TimeOnly), e.Node, e.Step, strings.TrimSpace(line))
		}
	}
}

// draw draws the table over the one before.
func (v *view) draw() {
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	name := len("NODE")
	for _, r := range v.rows {
		name = max(name, len(r.Node))
	}
	for i := -1; i < len(v.rows); i++ {
		line := fmt.Sprintf("%-*s  %-9s  %-7s  %-8s  %s", name, "NODE", "WAS", "STEP", "SINCE", "")
		if i >= 0 {
			r, since := v.rows[i], ""
			if !r.Time.IsZero() {
				since = r.Time.Format(time.TimeOnly)
			}
			line = fmt.Sprintf("%-*s  %-9s  %-7s  %-8s  %s", name, r.Node, r.version, r.Step, since, strings.Join(strings.Fields(r.Message), " "))
		}
		if runes := []rune(line); len(runes) >= v.width {
			line = string(runes[:v.width-1])
		}
		fmt.Fprintf(&b, "\x1b[2K%s\n", line)
	}
	v.drawn = len(v.rows) + 1
	io.WriteString(v.out, b.String())
}

// end shows the result, and returns it.
func (v *view) end(err error) error {
	if v.json {
		r := struct {
			Time   time.Time `json:"time"`
			Result string    `json:"result"` // done or failed
			Error  string    `json:"error,omitempty"`
		}{time.Now(), "done", ""}
		if err != nil {
			r.Result, r.Error = "failed", err.Error()
		}
		v.line(r)
	} else if err == nil {
		fmt.Fprintln(v.out, "Done.")
	}
	return err
}

func (v *view) line(o any) {
	b, _ := json.Marshal(o) // text and times always encode
	fmt.Fprintf(v.out, "%s\n", b)
}

// observe connects to a cluster and reads the state of its nodes.
func observe(ctx context.Context, kubeconfig string) (*fleet.Fleet, fleet.Cluster, error) {
	c, _, err := connect(kubeconfig)
	if err != nil {
		return nil, fleet.Cluster{}, err
	}
	f := &fleet.Fleet{Client: c, Who: operator()}
	seen, err := f.Observe(ctx)
	return f, seen, err
}

// operator names the person who runs this program, for other operators.
func operator() string {
	name := "unknown user"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	// In containers, processes of two operators may have the same number and host.
	return fmt.Sprintf("%s@%s (process %d, %s)", name, host, os.Getpid(), strings.ToLower(rand.Text()[:6]))
}
