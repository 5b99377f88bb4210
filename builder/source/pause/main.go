// Command pause is the first process of every pod's sandbox: it holds the
// namespaces, reaps what is orphaned to it, and ends on SIGINT or SIGTERM. It
// is compiled for the pause image and imports nothing but the standard
// library.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

func main() {
	for _, arg := range os.Args[1:] {
		if strings.EqualFold(arg, "-v") {
			fmt.Println("pause", version)
			return
		}
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "pause: not the first process: orphans of this pod are not reaped here")
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	reap() // what ended before the signals were watched
	for s := range signals {
		if s != syscall.SIGCHLD {
			fmt.Fprintln(os.Stderr, "pause: shutting down on signal", s)
			return
		}
		reap()
	}
}

// reap waits for every child that has ended.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
	}
}
