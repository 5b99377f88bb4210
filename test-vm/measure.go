package testvm

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Written returns how many bytes were written to the machine's /var since it
// was mounted, as the host's block layer counts them. What the file system
// has not written yet is not counted: sync first. Container lane only, and only where
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

// WatchAPI starts to ask the API server of a container twenty times a second
// whether it is healthy. The function that it returns ends that, and returns for
// how long in total the answer was not yes.
func WatchAPI(m Machine) (stop func() time.Duration, err error) {
	c, ok := m.(*container)
	if !ok {
		return nil, errors.New("cannot watch the API server of this machine: it must be a container")
	}
	ns, address := c.netns(), cmp.Or(c.o.Address, ContainerAddress)
	if c.o.Network == nil { // a Network has this address already
		if err := run("ip", "-n", ns, "addr", "replace", netPrefix+"1/24", "dev", bridge); err != nil {
			return nil, err
		}
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // whether, and not who
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = inNetns(ns, func() (err error) {
				conn, err = net.DialTimeout(network, addr, time.Second)
				return err
			})
			return conn, err
		},
	}}
	healthy := func() bool {
		resp, err := client.Get("https://" + net.JoinHostPort(address, "6443") + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	ended, away := make(chan struct{}), make(chan time.Duration)
	go func() {
		var total time.Duration
		var since time.Time // when it was away first; zero while it answers
		for asked := time.Now(); ; asked = time.Now() {
			switch ok := healthy(); {
			case !ok && since.IsZero():
				since = asked
			case ok && !since.IsZero():
				total += time.Since(since)
				since = time.Time{}
			}
			select {
			case <-ended:
				if !since.IsZero() {
					total += time.Since(since)
				}
				away <- total
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() time.Duration { close(ended); return <-away }, nil
}

// Median is the median of the measurements, of which there is at least one.
func Median[T ~int64](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
