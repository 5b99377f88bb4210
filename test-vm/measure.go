package testvm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Written returns how many bytes were written to the machine's /var since it
// was mounted, as the host's block layer counts them. What the file system
// holds back is not counted: sync first. Container lane only, and only where
// /var is a file system of its own.
func Written(m Machine) (int64, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(b)) != m.Places().Disk {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(f)), "stat"))
		if err != nil {
			return 0, err
		}
		// Documentation/block/stat.rst: the seventh field is sectors written.
		fields := strings.Fields(string(stat))
		if len(fields) < 7 {
			return 0, fmt.Errorf("cannot read %q", stat)
		}
		n, err := strconv.ParseInt(fields[6], 10, 64)
		return n * 512, err
	}
	return 0, fmt.Errorf("cannot count what the machine in %s writes: its /var is no loop device", m.Places().Dir)
}

// Median is the middle of what was measured, at least once.
func Median[T ~int64](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
