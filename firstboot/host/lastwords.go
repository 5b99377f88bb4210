package host

import (
	"bufio"
	"encoding/json"
	"io"
	"regexp"
	"strings"
)

// Nobody logs in to a node to look for the log of what has ended: what it said
// last goes with the error.

var (
	// klogHead begins a line of klog, by which kubelet and control plane log:
	// severity, date, time, thread, place.
	klogHead = regexp.MustCompile(`^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+\] `)
	// capnslogHead begins a line of etcd's up to v3.4: date, time, severity.
	capnslogHead = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ([CEWNID]) \| `)
	// criHead begins a line of a container's log: time, stream, whole or part.
	criHead = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+ std(?:out|err) [FP] `)
	// traceHead begins the stack of a goroutine, and frame is a line of one: a
	// function with its arguments, the place in its file, or who started it.
	traceHead = regexp.MustCompile(`^goroutine \d+ .*\[.+\]:$`)
	frame     = regexp.MustCompile(`^\t\S+\.go:\d+( \+0x[0-9a-f]+)?$|^created by |^[\w./*()\[\]·,-]+\(.*\)$`)
)

// longestWords is how much of a line goes with an error, in bytes.
const longestWords = 300

// LastWords finds in the end of a log the line that says best why a program
// ended: the last that is fatal (by klog's, etcd's or Go's word for it, or what
// cobra ends with, "Error: …"), else the last error, else the last line. The
// stacks of goroutines that follow a fatal line say nothing of it.
func LastWords(log io.Reader) (string, error) {
	var fatal, failure, last string
	trace := false // the lines are of a goroutine's stack
	lines := bufio.NewReaderSize(log, 64<<10)
	for {
		raw, err := lines.ReadString('\n')
		if raw == "" && err != nil {
			if err != io.EOF {
				return "", err
			}
			break
		}
		line := strings.TrimRight(criHead.ReplaceAllString(raw, ""), "\r\n ")
		severity, words := severityOf(line)
		switch {
		case severity == "" && traceHead.MatchString(line):
			trace = true
			continue
		case severity != "":
			trace = false
		case words == "" || trace || frame.MatchString(line):
			continue
		}
		switch severity {
		case "F":
			fatal = words
		case "E":
			failure = words
		}
		last = words
	}
	for _, words := range []string{fatal, failure, last} {
		if len(words) > longestWords {
			words = words[:longestWords-4] + " ..."
		}
		if words != "" {
			return words, nil
		}
	}
	return "", nil
}

// severityOf splits a line of a log into how bad it is ("F" fatal, "E" an
// error, "I" neither, "" where the line does not say) and its words.
func severityOf(line string) (severity, words string) {
	if m := klogHead.FindStringSubmatch(line); m != nil {
		if m[1] == "W" {
			m[1] = "I"
		}
		return m[1], strings.TrimSpace(line[len(m[0]):])
	}
	if m := capnslogHead.FindStringSubmatch(line); m != nil {
		switch m[1] {
		case "C":
			return "F", line[len(m[0]):]
		case "E":
			return "E", line[len(m[0]):]
		}
		return "I", line[len(m[0]):]
	}
	// Of cobra, the Go runtime, and package flag, which prints its usage after it.
	for _, fatal := range []string{"Error: ", "panic: ", "fatal error: ", "flag provided but not defined: ", "invalid value "} {
		if strings.HasPrefix(line, fatal) {
			return "F", line
		}
	}
	var zap struct{ Level, Msg, Error string } // etcd's from v3.5 on
	if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &zap) == nil && zap.Level != "" {
		if zap.Error != "" {
			zap.Msg += ": " + zap.Error
		}
		switch zap.Level {
		case "fatal", "panic", "dpanic":
			return "F", zap.Msg
		case "error":
			return "E", zap.Msg
		}
		return "I", zap.Msg
	}
	return "", strings.TrimSpace(line)
}
