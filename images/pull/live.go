package pull

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Live is a reporter for terminals: one line for each image and one for the
// total, redrawn ten times a second. width is the terminal's current width, 0 if it
// is not known. The caller calls stop when the pull has ended, which draws the
// final state.
func Live(w io.Writer, width func() int) (report func(Event), stop func()) {
	v := &view{state: newState(), w: w, width: width}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-quit:
				v.draw()
				return
			case <-t.C:
				v.draw()
			}
		}
	}()
	return v.report, sync.OnceFunc(func() { close(quit); <-ended })
}

type view struct {
	mu    sync.Mutex
	state *state
	note  map[string]string // why an image waits
	drawn int               // lines that the last drawing took
	w     io.Writer
	width func() int
}

func (v *view) report(e Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.state.add(e)
	if v.note == nil {
		v.note = map[string]string{}
	}
	switch e.Kind {
	case Retrying:
		v.note[e.Image] = oneLine(e.Err) + "; trying again"
	case Bytes:
		for name, blobs := range v.state.images {
			for _, b := range blobs {
				if b.Digest == e.Digest {
					delete(v.note, name)
				}
			}
		}
	}
}

func (v *view) draw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	var lines []string
	for _, name := range v.state.order {
		have, all := v.state.image(name)
		what := fmt.Sprintf("%s of %s", size(have), size(all))
		if v.state.done[name] {
			what = size(all) + ", done"
		} else if v.note[name] != "" {
			what += ", " + v.note[name]
		}
		lines = append(lines, name+"  "+what)
	}
	have, all := v.state.total()
	lines = append(lines, fmt.Sprintf("%s %d of %d images, %s of %s", bar(have, all), len(v.state.done), len(v.state.order), size(have), size(all)))
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn) // up; ECMA-48, CUU
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "\x1b[K%s\n", cut(l, v.width())) // erase; ECMA-48, EL
	}
	v.drawn = len(lines)
	io.WriteString(v.w, b.String())
}

// bar is the part done as 20 signs.
func bar(have, all int64) string {
	n := 0
	if all > 0 {
		n = int(min(20, 20*have/all))
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", 20-n) + "]"
}

// cut shortens a line that would wrap, since wrapped lines could not be redrawn.
func cut(l string, width int) string {
	l = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, l)
	if r := []rune(l); width > 1 && len(r) >= width {
		return string(r[:width-1])
	}
	return l
}
