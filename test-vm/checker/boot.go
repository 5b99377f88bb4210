package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// bootTime is when PID 1 of this machine started. The kernel's own boot time
// would be that of the host in a container.
func bootTime() (time.Time, error) {
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return time.Time{}, err
	}
	// Field 22, starttime, in clock ticks (USER_HZ, 100 on Linux) after the
	// kernel's boot; proc_pid_stat(5).
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return time.Time{}, fmt.Errorf("cannot read /proc/1/stat: %q", stat)
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	all, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(all)) {
		if s, ok := strings.CutPrefix(line, "btime "); ok {
			sec, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			return time.Unix(sec, ticks%100*1e7).Add(time.Duration(ticks/100) * time.Second), err
		}
	}
	return time.Time{}, fmt.Errorf("no btime in /proc/stat")
}
