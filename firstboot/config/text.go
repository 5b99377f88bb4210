package config

import (
	"slices"
	"strings"
)

// list writes names for people: "a, b and c", sorted.
func list(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	switch len(names) {
	case 0:
		return "none"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// printable cuts what someone wrote as a name to what may be shown.
func printable(s string) string {
	s = secretText.ReplaceAllString(s, redacted)
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// didYouMean proposes the field that name most looks like.
func didYouMean(name string, fields map[string]string) string {
	best, dist := "", 4
	var all []string
	for f := range fields {
		all = append(all, f)
	}
	slices.Sort(all)
	for _, f := range all {
		d := distance(strings.ToLower(name), strings.ToLower(f))
		if d < dist && d < len(f) {
			best, dist = f, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if len(all) > 16 {
		return "remove it, or look up the kind's fields for this Kubernetes version"
	}
	return "the fields here are " + list(all)
}

// distance is the number of letters to insert, remove or replace to get from
// a to b (Levenshtein).
func distance(a, b string) int {
	if len(a) > 60 || len(b) > 60 {
		return 60
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, diag+cost)
			diag, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
