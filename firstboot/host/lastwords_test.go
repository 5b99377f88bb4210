package host

import (
	"fmt"
	"strings"
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
		// etcd v3.4, v3.5, and a Go program that panics.
		"2026-11-27 17:53:31.576801 N | etcdmain: the server is already initialized as member before\n" +
			"2026-11-27 17:53:31.576866 C | etcdmain: listen tcp 127.0.0.1:2379: bind: address already in use\n": "etcdmain: listen tcp 127.0.0.1:2379: bind: address already in use",
		`{"level":"info","ts":"2026-11-27T17:53:31.5Z","msg":"closing etcd server"}` + "\n" +
			`{"level":"fatal","ts":"2026-11-27T17:53:31.6Z","caller":"etcdmain/etcd.go:204","msg":"discovery failed","error":"member count is unequal","stacktrace":"main.main"}` + "\n": "discovery failed: member count is unequal",
		"starting\npanic: runtime error: index out of range [1] with length 0\n\ngoroutine 7 [running]:\nmain.main()\n\t/src/main.go:4 +0x48\nexit status 2\n": "panic: runtime error: index out of range [1] with length 0",
		"flag provided but not defined: -no-such-flag\nUsage:\n\n  etcd [flags]\n    Start an etcd server.\n":                                                  "flag provided but not defined: -no-such-flag",
		// Its head is cut off.
		"main.run(0xc000012345, {0x1, 0x2})\n\t/src/main.go:4 +0x48\ncreated by main.main in goroutine 1\n\t/src/main.go:9 +0x1a\n": "",
	} {
		if got, err := LastWords(strings.NewReader(log)); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", log, got, err, want)
		}
	}
}

// What an API server says that is ended while it starts: klog's Fatal, then the
// stacks of more than a thousand goroutines, and what others log meanwhile.
func TestLastWordsOfAPIServer(t *testing.T) {
	var log strings.Builder
	log.WriteString("F1127 17:53:14.532776   28645 hooks.go:202] PostStartHook \"crd-informer-synced\" failed: timed out waiting for the condition\n")
	for i := range 1500 {
		fmt.Fprintf(&log, "goroutine %d [select, 1 minutes]:\nk8s.io/apimachinery/pkg/util/wait.(*Group).Start.func1(0xc0001, 0x2)\n"+
			"\tk8s.io/apimachinery@v0.19.12/pkg/util/wait/wait.go:588 +0x17e\n"+
			"created by k8s.io/apiserver/pkg/controller.(*Controller).Run in goroutine 1616\n\tk8s.io/apiserver/controller.go:141 +0x48\n\n", i+1)
	}
	log.WriteString("I1127 17:53:14.610854   28645 shared_informer.go:240] Waiting for caches to sync\n" +
		"E1127 17:53:14.610860   28645 shared_informer.go:243] unable to sync caches\n")
	want := `PostStartHook "crd-informer-synced" failed: timed out waiting for the condition`
	if got, err := LastWords(strings.NewReader(log.String())); got != want || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
