// Command bench-join measures how long a worker takes to join a cluster, from
// the start of the program that does it until the cluster says that the node is
// Ready, on the same image in one run:
//
//	a  kbuild-firstboot, from the start of its unit
//	b  `kubeadm join` of the same version on the same binaries, images imported
//	   already, the pod network's configuration in place, preflight checks left out
//
// Each is run in a fresh container (package testvm), in turns, against one
// control plane that kbuild made, and the medians are compared.
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

	testvm "github.com/kbuild/kbuild/test-vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-join:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench-join", flag.ContinueOnError)
	dir := f.String("image", os.Getenv("KBUILD_IMAGE"), "output `directory` of kbuild image")
	kubeadm := f.String("kubeadm", "", "`path` of kubeadm of the image's version (default: compiled from its module)")
	runs := f.Int("runs", 3, "how many times each is measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("no image: give --image, the output directory of kbuild image, or set KBUILD_IMAGE")
	}
	if *runs < 1 {
		return fmt.Errorf("--runs is %d: want 1 or more", *runs)
	}
	image, err := testvm.OpenImage(*dir)
	if err != nil {
		return err
	}
	if *kubeadm == "" {
		if *kubeadm, err = testvm.CompileKubeadm(ctx, image.Version); err != nil {
			return err
		}
	}
	b, err := begin(ctx, image, *kubeadm)
	if err != nil {
		return err
	}
	defer b.close()
	var rows [2][]time.Duration
	for i := range *runs {
		for k, measure := range []func(context.Context, string) (time.Duration, error){b.firstboot, b.join} {
			name := fmt.Sprintf("%c%d", "ab"[k], i+1)
			d, err := measure(ctx, name)
			if err != nil {
				return fmt.Errorf("run %d of %c: %w", i+1, "ab"[k], err)
			}
			fmt.Fprintf(os.Stderr, "%s: Ready after %.2fs\n", name, d.Seconds())
			rows[k] = append(rows[k], d)
		}
	}
	x, y := testvm.Median(rows[0]), testvm.Median(rows[1])
	fmt.Printf("Kubernetes %s, medians of %d\n\n| | Ready |\n|---|---|\n", image.Version, *runs)
	fmt.Printf("| a: kbuild-firstboot joins | %.2f s |\n| b: kubeadm join, images imported | %.2f s |\n| a/b | %.2f |\n", x.Seconds(), y.Seconds(), x.Seconds()/y.Seconds())
	return nil
}
