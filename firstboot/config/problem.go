package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Problem is one thing that is wrong with a node's configuration.
type Problem struct {
	Source string // where the value came from: "credential kbuild.userdata", "default"
	Line   int    // in Source, from 1; 0 if it has no line
	Column int    // from 1; 0 if unknown
	Field  string // "ClusterConfiguration networking.podSubnet"
	What   string // what is wrong; never holds a secret
	Remedy string // what to do about it
	// Missing says that nothing gives the value: what is read later still may.
	Missing bool
	// Excerpt is the line of the source with a caret below, secrets masked;
	// it may be empty.
	Excerpt string
}

func (p Problem) Error() string {
	var b strings.Builder
	if p.Source != "" {
		b.WriteString(p.Source)
		if p.Line > 0 {
			fmt.Fprintf(&b, ", line %d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.What)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	return b.String()
}

// Problems is the error of a configuration that cannot be used: all that was
// found wrong with it, at least one.
type Problems []Problem

func (p Problems) Error() string {
	s := make([]string, len(p))
	for i := range p {
		s[i] = p[i].Error()
	}
	return "cannot use this configuration:\n" + strings.Join(s, "\n")
}

// maxProblems bounds what one bad document can print.
const maxProblems = 20

func (p *Problems) add(q Problem) {
	if len(*p) < maxProblems {
		*p = append(*p, q)
	}
}

// err is p as an error, nil if there is no problem.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

var (
	// secretName matches lines that are likely to hold a secret: their
	// excerpt stops at the colon.
	secretName = regexp.MustCompile(`(?i)(token|secret|passw|credential|certificatekey)`)
	// secretBlock matches documents that hold private keys over several lines.
	secretBlock = regexp.MustCompile(`PRIVATE KEY`)
	// secretText matches bootstrap tokens and long hexadecimal or base64.
	secretText = regexp.MustCompile(`[A-Za-z0-9]{6}\.[A-Za-z0-9]{16}|[A-Za-z0-9+/=]{32,}`)
)

// excerpt shows line (from 1) of text with a caret below column.
func excerpt(text []byte, line, column int) string {
	lines := strings.Split(string(text), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	s := strings.TrimRight(strings.ReplaceAll(lines[line-1], "\t", " "), " \r")
	if secretBlock.Match(text) && !strings.Contains(s, ":") {
		return "" // it may be the short last line of a key
	}
	if secretName.MatchString(s) {
		colon := strings.Index(s, ":")
		if colon < 0 {
			return ""
		}
		s = s[:colon+1] + " " + redacted
	}
	s = secretText.ReplaceAllString(s, redacted)
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 120 {
		s = string(r[:120]) + "…"
	}
	num := fmt.Sprintf("%5d | ", line)
	out := num + s
	if column > 0 && column <= len([]rune(s)) {
		out += "\n" + strings.Repeat(" ", len(num)-2) + "| " + strings.Repeat(" ", column-1) + "^"
	}
	return out
}
