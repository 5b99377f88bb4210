package host

import (
	"bytes"
	"regexp"
	"strings"
)

// Nobody logs in to a node to look for the log of what has ended: what it said
// last goes with the error.

var (
	// klogHead begins a line of klog, by which kubelet and control plane log:
	// severity, date, time, thread, place.
	klogHead = regexp.MustCompile(`^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+\] `)
	// criHead begins a line of a container's log: time, stream, whole or part.
	criHead = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+ std(?:out|err) [FP] `)
)

// LastWords finds in the end of a log the line that says best why a program
// ended: the last that klog calls fatal or that cobra ends with ("Error: …"),
// else the last error of klog's, else the last line. Of a fatal line's stack
// there is nothing to learn here.
func LastWords(log []byte) string {
	const longest = 300
	var fatal, failure, last string
	for l := range bytes.Lines(log) {
		line := strings.TrimSpace(criHead.ReplaceAllString(string(l), ""))
		severity := ""
		if m := klogHead.FindStringSubmatch(line); m != nil {
			severity, line = m[1], line[len(m[0]):]
		}
		switch {
		case line == "":
			continue
		case severity == "F" || strings.HasPrefix(line, "Error: "):
			fatal = line
		case severity == "E":
			failure = line
		}
		last = line
	}
	for _, words := range []string{fatal, failure, last} {
		if len(words) > longest {
			words = words[:longest-4] + " ..."
		}
		if words != "" {
			return words
		}
	}
	return ""
}
