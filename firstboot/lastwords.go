package firstboot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
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

// lastWords finds in the end of a log the line that says best why a program
// ended: the last that klog calls fatal or that cobra ends with ("Error: …"),
// else the last error of klog's, else the last line. Of a fatal line's stack
// there is nothing to learn here.
func lastWords(log []byte) string {
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

// containerSaid says whether a container has failed, and what it said last, with
// what leads up to it; empty where its log cannot be read.
func containerSaid(ctx context.Context, r *Run, client cri.RuntimeServiceClient, id string) (failed bool, words string) {
	resp, err := client.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return false, ""
	}
	failed = resp.GetStatus().GetExitCode() != 0
	f, err := r.Host.Root.Open(strings.TrimPrefix(resp.GetStatus().GetLogPath(), "/"))
	if err != nil {
		return failed, ""
	}
	defer f.Close()
	const tail = 64 << 10
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-tail), io.SeekStart)
	}
	b, err := io.ReadAll(io.LimitReader(f, tail))
	if said := lastWords(b); err == nil && said != "" {
		words = ": " + said
	}
	return failed, words
}

// kubeletSaid is what the kubelet said last, when it does not run.
func kubeletSaid(ctx context.Context, r *Run) string {
	if state, err := r.Host.Systemd.Active(ctx, kubeletUnit); err != nil || state == "active" {
		return ""
	}
	// What systemd says about the unit is none of the kubelet's words.
	out, err := r.Host.Run(ctx, "journalctl", "--boot", "--no-pager", "--output=cat", "--lines=500", "_SYSTEMD_UNIT="+kubeletUnit)
	if words := lastWords(out); err == nil && words != "" {
		return fmt.Sprintf("; %s has ended: %s", kubeletUnit, words)
	}
	return ""
}
