package cluster

import (
	"bytes"
	"encoding/json"
	"strings"
)

// maxResult is how many bytes of a container's termination message the kubelet
// keeps.
const maxResult = 4096

// JobResult is what a node leaves of a command that its operator has had it run
// by a Job: JSON in the termination message of the Job's container.
type JobResult struct {
	Said []string `json:"said"` // what the command printed last, line by line
}

// NewJobResult is the result of a command that printed text: its lines, without
// the name of the program in front.
func NewJobResult(text string) JobResult {
	r := JobResult{Said: []string{}}
	for line := range strings.Lines(text) {
		if line = strings.TrimPrefix(strings.TrimSpace(line), "kbuild-firstboot: "); line != "" {
			r.Said = append(r.Said, line)
		}
	}
	return r
}

// Message is the result as a termination message. What does not fit goes, the
// oldest line first.
func (r JobResult) Message() []byte {
	for {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.Encode(r) // strings alone: it cannot fail
		if b.Len() <= maxResult {
			return b.Bytes()
		}
		if len(r.Said) > 1 {
			r.Said = r.Said[1:]
			continue
		}
		line := []rune(r.Said[0])
		r.Said = []string{string(line[len(line)/4+1:])}
	}
}

// ReadJobResult reads a termination message; nodes of earlier images left text.
func ReadJobResult(message string) JobResult {
	var r JobResult
	if err := json.Unmarshal([]byte(message), &r); err != nil {
		return NewJobResult(message)
	}
	return r
}

func (r JobResult) String() string { return strings.Join(r.Said, "\n") }
