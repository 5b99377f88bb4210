package host

import (
	"testing"
)

func TestLastWords(t *testing.T) {
	for log, want := range map[string]string{
		"":               "",
		"one\n\ntwo\n\n": "two",
		// klog's Fatal dumps the stacks of all goroutines.
		"I1125 18:00:00.000000       1 server.go:1] Version: v1.20.15\n" +
			"E1125 18:00:01.000000       1 x.go:2] a trouble on the way\n" +
			"F1125 18:00:02.000000    4711 server.go:269] failed to run Kubelet: misconfiguration: \"cgroupfs\"\ngoroutine 1 [running]:\nk8s.io/klog/v2.stacks(0x1)\n": "failed to run Kubelet: misconfiguration: \"cgroupfs\"",
		// As a container's log has it, of a program that prints its usage.
		"2026-11-25T18:00:00.123456789Z stderr F Error: unknown flag: --no-such-flag\n2026-11-25T18:00:00.2Z stderr F Usage:\n":         "Error: unknown flag: --no-such-flag",
		"E1125 18:00:01.000000       1 run.go:74] \"command failed\" err=\"no such file\"\nI1125 18:00:01.000000       1 x.go:2] bye\n": "\"command failed\" err=\"no such file\"",
	} {
		if got := LastWords([]byte(log)); got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}
