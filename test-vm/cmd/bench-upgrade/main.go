// Command bench-upgrade measures for how long the API of a single control plane
// does not answer, from the moment that a reboot is asked for until it is
// healthy, in one run:
//
//	a  a swap to the image of the next minor version
//	b  a bare reboot of the same machine
//	c  a swap back to the image of before
//
// in a container (package testvm), in turns, and compares the medians.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kbuild/kbuild/images"
	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-upgrade:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench-upgrade", flag.ContinueOnError)
	dir := f.String("image", os.Getenv("KBUILD_IMAGE"), "output `directory` of kbuild image")
	other := f.String("other", os.Getenv("KBUILD_OTHER_IMAGE"), "output `directory` of kbuild image of the next minor version")
	runs := f.Int("runs", 3, "how many times each is measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *other == "" {
		return errors.New("no images: give --image and --other, output directories of kbuild image")
	}
	if *runs < 1 {
		return fmt.Errorf("--runs is %d: want 1 or more", *runs)
	}
	old, err := testvm.OpenImage(*dir)
	if err != nil {
		return err
	}
	next, err := testvm.OpenImage(*other)
	if err != nil {
		return err
	}
	m, err := begin(ctx, old, next)
	if err != nil {
		return err
	}
	defer m.Close()
	names := [3]string{"a: swap to " + next.Version, "b: reboot of " + next.Version, "c: swap back to " + old.Version}
	var rows [3][]time.Duration
	for i := range *runs {
		for k, down := range []func(context.Context) error{
			func(ctx context.Context) error { return swap(ctx, m) },
			m.Reboot,
			func(ctx context.Context) error { return swap(ctx, m) },
		} {
			d, err := outage(ctx, m, down)
			if err != nil {
				return fmt.Errorf("run %d, %s: %w", i+1, names[k], err)
			}
			fmt.Fprintf(os.Stderr, "%s: %.2f s\n", names[k], d.Seconds())
			rows[k] = append(rows[k], d)
		}
	}
	fmt.Printf("medians of %d\n\n| | API away |\n|---|---|\n", *runs)
	var medians [3]time.Duration
	for k, d := range rows {
		medians[k] = testvm.Median(d)
		fmt.Printf("| %s | %.1f s |\n", names[k], medians[k].Seconds())
	}
	fmt.Printf("| a/b | %.2f |\n| c/b | %.2f |\n", medians[0].Seconds()/medians[1].Seconds(), medians[2].Seconds()/medians[1].Seconds())
	return nil
}

func quiet(string, ...any) {}

// begin boots a control plane that has the other image in its other slot.
func begin(ctx context.Context, old, next testvm.Image) (testvm.Machine, error) {
	r, err := images.Lookup(old.Version)
	if err != nil {
		return nil, err
	}
	data := "apiVersion: kubeadm.k8s.io/" + r.ConfigAPI + "\nkind: InitConfiguration\nnodeRegistration:\n  name: bench\n---\n" + testvm.ContainerUserData()
	m, err := testvm.New(ctx, testvm.Container, testvm.Options{Image: old, Next: &next, Name: "bench", UserData: data, Log: quiet})
	if err != nil {
		return nil, err
	}
	if err = m.Start(ctx); err == nil {
		err = settled(ctx, m)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// settled waits until the machine has nothing left to do.
func settled(ctx context.Context, m testvm.Machine) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	if err := testvm.WaitReady(ctx, m, quiet); err != nil {
		return fmt.Errorf("%w\n%s", err, testvm.ConsoleTail(m, 60))
	}
	return testvm.Wait(ctx, m, quiet, "the list's end", func(ctx context.Context) (string, error) {
		_, err := testvm.Sh(ctx, m, "systemctl is-active --quiet kbuild-firstboot.service && sync")
		return "", err
	})
}

// swap boots the other slot, as `kbuild-firstboot upgrade apply` does.
func swap(ctx context.Context, m testvm.Machine) error {
	if _, err := testvm.Sh(ctx, m, "kbuild-firstboot upgrade stage harness"); err != nil {
		return err
	}
	var e guest.Exec
	m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"kbuild-firstboot", "upgrade", "apply"}}, &e) // the machine goes down before it can answer
	if e.Code != 0 {
		return fmt.Errorf("upgrade apply: %s", e.Stderr)
	}
	return testvm.Swapped(ctx, m, false)
}

// outage is how long the API is away by what down does. The clock of a
// container is the host's.
func outage(ctx context.Context, m testvm.Machine, down func(context.Context) error) (time.Duration, error) {
	start := time.Now()
	if err := down(ctx); err != nil {
		return 0, err
	}
	limit, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	var t guest.Times
	for {
		if err := m.Ask(limit, guest.CmdTimes, nil, &t); err == nil && !t.API.IsZero() {
			break
		}
		select {
		case <-limit.Done():
			return 0, fmt.Errorf("the API does not come back: %w\n%s", context.Cause(limit), testvm.ConsoleTail(m, 60))
		case <-time.After(100 * time.Millisecond):
		}
	}
	return t.API.Sub(start), settled(ctx, m)
}
