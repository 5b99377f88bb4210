// Command bench-upgrade measures for how long the API of a single control plane
// is away, and how long the whole takes, in one run:
//
//	a  a swap to the image of the next minor version
//	b  a bare reboot of the same machine
//	c  a swap back to the image of before
//	d  real `kubeadm upgrade apply` to that version on a cluster of kubeadm's,
//	   images imported already, then the new kubelet in place and restarted
//
// in containers (package testvm), in turns, and compares the medians. a, b and c
// begin with the command that ends in a reboot and end when the node and CoreDNS
// are Ready and kbuild-firstboot has nothing left to do; d ends when the node is
// Ready with the new kubelet (kubeadm has waited for CoreDNS). The API is away
// while /healthz is not answered with 200.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kbuild/kbuild/images"
	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/bench"
	"github.com/kbuild/kbuild/test-vm/guest"
)

func main() {
	var other string
	own := func(f *flag.FlagSet) {
		f.StringVar(&other, "other", os.Getenv("KBUILD_OTHER_IMAGE"), "output `directory` of kbuild image of the next minor version")
	}
	bench.Main("bench-upgrade", own, func(ctx context.Context, o bench.Options) error { return run(ctx, o, other) })
}

func run(ctx context.Context, o bench.Options, other string) error {
	if other == "" {
		return errors.New("no image to move to: give --other, the output directory of kbuild image of the next minor version")
	}
	old := o.Image
	next, err := testvm.OpenImage(other)
	if err != nil {
		return err
	}
	m, err := begin(ctx, old, next)
	if err != nil {
		return err
	}
	defer m.Close()
	k, err := newKubeadm(ctx, old, next)
	if err != nil {
		return err
	}
	defer k.close()
	names := [4]string{"a: swap to " + next.Version, "b: reboot of " + next.Version, "c: swap back to " + old.Version, "d: kubeadm upgrade apply and kubelet"}
	settle := func(do func(context.Context, testvm.Machine) error) func(context.Context) (result, error) {
		return func(ctx context.Context) (result, error) { return timed(ctx, m, do) }
	}
	reboot := func(ctx context.Context, m testvm.Machine) error { return m.Reboot(ctx) }
	var rows [4][]result
	for i := range o.Runs {
		for n, measure := range []func(context.Context) (result, error){settle(swap), settle(reboot), settle(swap), k.upgrade} {
			r, err := measure(ctx)
			if err != nil {
				return fmt.Errorf("run %d, %s: %w", i+1, names[n], err)
			}
			fmt.Fprintf(os.Stderr, "%s: API away for %.2f s, all done after %.2f s\n", names[n], r.away.Seconds(), r.whole.Seconds())
			rows[n] = append(rows[n], r)
		}
	}
	fmt.Printf("medians of %d\n\n| | API away | all done |\n|---|---|---|\n", o.Runs)
	var medians [4]result
	for n, all := range rows {
		var away, whole []time.Duration
		for _, r := range all {
			away, whole = append(away, r.away), append(whole, r.whole)
		}
		medians[n] = result{testvm.Median(away), testvm.Median(whole)}
		fmt.Printf("| %s | %.1f s | %.1f s |\n", names[n], medians[n].away.Seconds(), medians[n].whole.Seconds())
	}
	for _, n := range []int{1, 3} {
		fmt.Printf("| a/%c | %.2f | %.2f |\n", "abcd"[n], medians[0].away.Seconds()/medians[n].away.Seconds(), medians[0].whole.Seconds()/medians[n].whole.Seconds())
	}
	return nil
}

// result is one run.
type result struct{ away, whole time.Duration }

// userData makes a cluster of the image's version.
func userData(image testvm.Image) (string, error) {
	r, err := images.Assume(image.Version)
	if err != nil {
		return "", err
	}
	return "apiVersion: kubeadm.k8s.io/" + r.ConfigAPI + "\nkind: InitConfiguration\nnodeRegistration:\n  name: bench\n---\n" + testvm.ContainerUserData(r), nil
}

func quiet(string, ...any) {}

// begin boots a control plane that has the other image in its other slot.
func begin(ctx context.Context, old, next testvm.Image) (testvm.Machine, error) {
	data, err := userData(old)
	if err != nil {
		return nil, err
	}
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

// timed measures what do does to the machine, until it has settled. What runs
// when a machine goes down is part of that, and is there before the clock starts.
func timed(ctx context.Context, m testvm.Machine, do func(context.Context, testvm.Machine) error) (result, error) {
	if err := testvm.Until(ctx, m, kubectl+"get --raw /api/v1/namespaces/kube-system/services/kube-dns:metrics/proxy/metrics >/dev/null"); err != nil {
		return result{}, err
	}
	stop, err := testvm.WatchAPI(m)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	if err = do(ctx, m); err == nil {
		err = settled(ctx, m)
	}
	return result{whole: time.Since(start), away: stop()}, err
}
