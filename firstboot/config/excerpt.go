package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	// secretName matches lines that are likely to hold a secret: their
	// excerpt stops at the colon.
	secretName = regexp.MustCompile(`(?i)(token|secret|passw|credential|certificatekey)`)
	// secretBlock matches documents that hold private keys over several lines.
	secretBlock = regexp.MustCompile(`PRIVATE KEY`)
	// secretText matches bootstrap tokens and long hexadecimal or base64.
	secretText = regexp.MustCompile(`[A-Za-z0-9]{6}\.[A-Za-z0-9]{16}|[A-Za-z0-9+/=]{32,}`)
)

// longestLine is how much of a line an excerpt shows, in characters.
const longestLine = 120

// excerpt shows line (from 1) of text and the one before it. Below, the token
// that begins at column (from 1; 0 is unknown) is underlined. It is empty where
// the line cannot be shown.
func excerpt(text []byte, line, column int) string {
	lines := strings.Split(string(text), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	block := secretBlock.Match(text)
	shown, ok := masked(lines[line-1], block)
	if !ok {
		return ""
	}
	var out strings.Builder
	if line > 1 {
		if before, ok := masked(lines[line-2], block); ok && strings.TrimSpace(before) != "" {
			fmt.Fprintf(&out, "%5d | %s\n", line-1, before)
		}
	}
	fmt.Fprintf(&out, "%5d | %s", line, shown)
	if from, n := token(lines[line-1], column); column > 0 && from+n <= utf8.RuneCountInString(shown) && strings.HasPrefix(shown, beginning(lines[line-1], from)) {
		fmt.Fprintf(&out, "\n      | %s%s", strings.Repeat(" ", from), strings.Repeat("^", n))
	}
	return out.String()
}

// beginning is the first n characters of a line as masked shows them.
func beginning(line string, n int) string { return string([]rune(printableLine(line))[:n]) }

func printableLine(s string) string {
	s = strings.TrimRight(strings.ReplaceAll(s, "\t", " "), " \r")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// masked is a line without secrets; false where all of it may be one. block says
// that the document holds private keys over several lines.
func masked(s string, block bool) (string, bool) {
	s = printableLine(s)
	if block && !strings.Contains(s, ":") {
		return "", false // it may be the short last line of a key
	}
	if secretName.MatchString(s) {
		colon := strings.Index(s, ":")
		if colon < 0 {
			return "", false
		}
		s = s[:colon+1] + " " + redacted
	}
	s = secretText.ReplaceAllString(s, redacted)
	if r := []rune(s); len(r) > longestLine {
		s = string(r[:longestLine]) + "…"
	}
	return s, true
}

// token is where the token that column (from 1) points into begins, in characters
// from 0, and how long it is: a quoted text, a list or mapping up to the line's
// end, or what stands up to the next delimiter of YAML's.
func token(line string, column int) (from, n int) {
	r := []rune(printableLine(line))
	from = column - 1
	if from < 0 || from >= len(r) {
		return 0, 0
	}
	rest := r[from:]
	switch rest[0] {
	case '"', '\'':
		for i := 1; i < len(rest); i++ {
			if rest[i] == rest[0] {
				return from, i + 1
			}
		}
		return from, len(rest)
	case '[', '{':
		return from, len(rest)
	}
	for i, c := range rest {
		last := i+1 == len(rest)
		if c == ',' || c == ']' || c == '}' || c == ':' && (last || rest[i+1] == ' ') || c == '#' && i > 0 && rest[i-1] == ' ' {
			return from, len([]rune(strings.TrimRight(string(rest[:i]), " ")))
		}
	}
	return from, len(rest)
}

var indexAtEnd = regexp.MustCompile(`\[(\d+)\]$`)

// columnOf finds the value of a field ("NodeMetadata skipPhases[1]") in the line
// that gives it, from 1: behind its name and colon, in a list the element, else
// what the line holds.
func columnOf(line, field string) int {
	r := printableLine(line)
	name := field[strings.LastIndexAny(field, " .")+1:]
	index := -1
	if m := indexAtEnd.FindStringSubmatch(name); m != nil {
		index, _ = strconv.Atoi(m[1]) // digits
		name = strings.TrimSuffix(name, m[0])
	}
	at := len(r) - len(strings.TrimLeft(r, " -"))
	if i := strings.Index(r, ": "); i >= 0 { // the field has another name here
		at = i + 1 + len(r[i+1:]) - len(strings.TrimLeft(r[i+1:], " "))
	}
	if i := strings.Index(r, name+":"); name != "" && i >= 0 {
		value := i + len(name) + 1
		value += len(r[value:]) - len(strings.TrimLeft(r[value:], " "))
		if at = i; value < len(r) {
			at = value
		}
		if index >= 0 && value < len(r) && r[value] == '[' {
			at = value + 1
			for ; index > 0; index-- {
				comma := strings.IndexByte(r[at:], ',')
				if comma < 0 {
					break
				}
				at += comma + 1
			}
			at += len(r[at:]) - len(strings.TrimLeft(r[at:], " "))
		}
	}
	return utf8.RuneCountInString(r[:min(at, len(r))]) + 1
}
