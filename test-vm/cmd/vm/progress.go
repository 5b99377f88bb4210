package main

import (
	"fmt"
	"os"
	"strings"
)

// progress shows the last of its lines: in place on a terminal, one after the
// other elsewhere.
type progress struct {
	terminal bool
	shown    bool
}

func newProgress() *progress {
	st, err := os.Stderr.Stat()
	return &progress{terminal: err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"}
}

// width is what a narrow terminal shows on one line.
const width = 78

func (p *progress) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	// The machine's directory begins every line; here there is only one.
	if _, rest, ok := strings.Cut(s, ": "); ok && strings.HasPrefix(s, "/") {
		s = rest
	}
	if !p.terminal {
		fmt.Fprintln(os.Stderr, s)
		return
	}
	if r := []rune(s); len(r) > width {
		s = string(r[:width-1]) + "…"
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K"+s)
	p.shown = true
}

func (p *progress) end() {
	if p.shown {
		fmt.Fprintln(os.Stderr)
	}
	p.shown = false
}
