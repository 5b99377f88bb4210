package config

import (
	"fmt"
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
	// Excerpt is the line of the source and the one before it, what is wrong
	// underlined and secrets masked; it may be empty.
	Excerpt string
}

// Error is the problem as compilers write one, so that a terminal makes the place
// clickable:
//
//	error: SOURCE:LINE:COLUMN: FIELD: WHAT
//	   12 | the line before
//	   13 | the line itself
//	      |     ^^^^
//	  REMEDY
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString("error: ")
	if p.Source != "" {
		b.WriteString(p.Source)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
			if p.Column > 0 {
				fmt.Fprintf(&b, ":%d", p.Column)
			}
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.What)
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	if p.Remedy != "" {
		b.WriteString("\n  " + strings.ReplaceAll(p.Remedy, "\n", "\n  "))
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
