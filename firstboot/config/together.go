package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// asProblems returns the problems that err is, or err where it is something
// else.
func asProblems(err error) (Problems, error) {
	var probs Problems
	if errors.As(err, &probs) {
		return probs, nil
	}
	return nil, err
}

// and adds to the problems of a document's form those of the values that could
// be read, so that all are told at once. What only follows from a value that
// could not be read is left out: a second word on a line, and what
// is said of values that are missing or that no line gives.
func (p Problems) and(values Problems) Problems {
	all := slices.Clone(p)
	for _, v := range values {
		follows := len(p) > 0 && (v.Line == 0 || v.Missing)
		again := slices.ContainsFunc(all, func(q Problem) bool {
			return q.Field == v.Field && (q.What == v.What || v.Line == 0)
		}) || slices.ContainsFunc(p, func(q Problem) bool { return q.Line > 0 && q.Source == v.Source && q.Line == v.Line })
		if !follows && !again {
			all.add(v)
		}
	}
	return all
}

// withExcerpts adds the lines of docs that problems speak of.
func (p Problems) withExcerpts(docs []Document) Problems {
	for i := range p {
		q := &p[i]
		src, num, ok := strings.Cut(q.Source, ", line ")
		line, err := strconv.Atoi(num)
		if !ok || err != nil || q.Line > 0 {
			continue
		}
		q.Source, q.Line = src, line
		for _, d := range docs {
			text := Text(d.Data)
			if lines := strings.Split(string(text), "\n"); d.Source == src && line <= len(lines) {
				q.Column = columnOf(lines[line-1], q.Field)
				q.Excerpt = excerpt(text, line, q.Column)
			}
		}
	}
	return p
}

// withExcerpts is Problems.withExcerpts for an error that may be problems.
func withExcerpts(err error, docs []Document) error {
	if probs, other := asProblems(err); other == nil {
		return probs.withExcerpts(docs).err()
	}
	return err
}
