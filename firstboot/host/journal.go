package host

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// JournalHandler is a slog handler that sends records to the journal over its
// native protocol. An attribute whose key is in capital letters becomes the
// field of that name; others become fields KBUILD_… and are also put behind
// the message, so that they show without asking.
func JournalHandler() slog.Handler {
	return &lines{emit: func(l slog.Level, text string, fields map[string]string) error {
		return journal.Send(text, priority(l), fields)
	}}
}

// ConsoleHandler writes each record as one plain line, for people: no time
// (the console and the journal have their own) and no capital-letter fields.
func ConsoleHandler(open func() (io.WriteCloser, error)) slog.Handler {
	return &lines{emit: func(l slog.Level, text string, _ map[string]string) error {
		w, err := open()
		if err != nil {
			return err
		}
		defer w.Close()
		_, err = fmt.Fprintf(w, "kbuild-firstboot: %s%s\n", prefix(l), text)
		return err
	}}
}

// lines is a slog handler that turns a record into a line and fields.
type lines struct {
	mu    sync.Mutex
	attrs []slog.Attr
	group string
	emit  func(l slog.Level, text string, fields map[string]string) error
}

func (h *lines) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	text, fields := r.Message, map[string]string{}
	add := func(a slog.Attr) bool {
		v := a.Value.Resolve().String()
		if a.Key == strings.ToUpper(a.Key) {
			fields[a.Key] = v
			return true
		}
		text += " " + a.Key + "=" + quote(v)
		fields["KBUILD_"+field(a.Key)] = v
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(func(a slog.Attr) bool { a.Key = h.group + a.Key; return add(a) })
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.emit(r.Level, text, fields)
}

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := &lines{group: h.group, emit: h.emit}
	n.attrs = append(n.attrs, h.attrs...)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		n.attrs = append(n.attrs, a)
	}
	return n
}

func (h *lines) WithGroup(name string) slog.Handler {
	return &lines{attrs: h.attrs, group: h.group + name + ".", emit: h.emit}
}

// field makes a key fit for the journal: capital letters, digits, underscores.
func field(key string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
}

func quote(v string) string {
	if v == "" || strings.ContainsAny(v, " \t\n\"") {
		return fmt.Sprintf("%q", v)
	}
	return v
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

func prefix(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error: "
	case l >= slog.LevelWarn:
		return "warning: "
	}
	return ""
}
