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
	"fmt"
	"os"
	"time"

	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/bench"
)

func main() {
	var kubeadm bench.Kubeadm
	bench.Main("bench-join", kubeadm.Flag, func(ctx context.Context, o bench.Options) error { return run(ctx, o, &kubeadm) })
}

func run(ctx context.Context, o bench.Options, named *bench.Kubeadm) error {
	kubeadm, err := named.Path(ctx, o)
	if err != nil {
		return err
	}
	b, err := begin(ctx, o.Image, kubeadm)
	if err != nil {
		return err
	}
	defer b.close()
	var rows [2][]time.Duration
	for i := range o.Runs {
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
	fmt.Printf("Kubernetes %s, medians of %d\n\n| | Ready |\n|---|---|\n", o.Image.Version, o.Runs)
	fmt.Printf("| a: kbuild-firstboot joins | %.2f s |\n| b: kubeadm join, images imported | %.2f s |\n| a/b | %.2f |\n", x.Seconds(), y.Seconds(), x.Seconds()/y.Seconds())
	return nil
}
