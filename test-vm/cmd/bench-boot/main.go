// Command bench-boot measures how long a machine takes to become the first node
// of a cluster, against kubeadm and against the floor, on the same image in one
// run:
//
//	a  kbuild-firstboot, from the start of its unit
//	b  `kubeadm init` of the same version on the same binaries, images imported
//	   already, preflight checks (and with them image pulls) left out
//	c  the floor: every file is in place, etcd is empty, the kubelet is started
//
// Each is run in a fresh container (package testvm), in turns, and the medians
// are compared. In b and c the runtime holds the images, and the pod network's
// configuration lies in place, before the clock starts; a begins without both.
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
	bench.Main("bench-boot", kubeadm.Flag, func(ctx context.Context, o bench.Options) error { return run(ctx, o, &kubeadm) })
}

func run(ctx context.Context, o bench.Options, named *bench.Kubeadm) error {
	kubeadm, err := named.Path(ctx, o)
	if err != nil {
		return err
	}
	b := machines{image: o.Image, kubeadm: kubeadm}
	defer func() { os.Remove(b.state) }()
	var rows [3][]result
	for i := range o.Runs {
		for k, measure := range []func(context.Context) (result, error){b.firstboot, b.init, b.floor} {
			name := "abc"[k : k+1]
			r, err := measure(ctx)
			if err != nil {
				return fmt.Errorf("run %d of %s: %w", i+1, name, err)
			}
			fmt.Fprintf(os.Stderr, "%s %d: API healthy after %.2fs, Ready after %.2fs, %s written\n", name, i+1, r.api.Seconds(), r.ready.Seconds(), mib(r.bytes))
			rows[k] = append(rows[k], r)
		}
	}
	report(o.Image.Version, o.Runs, rows)
	return nil
}

// result is one run.
type result struct {
	api, ready time.Duration
	bytes      int64 // written to /var from the start of the clock until Ready, synced
	images     int64 // of these, bytes of container images in containerd's stores
}

func report(version string, runs int, rows [3][]result) {
	var m [3]result
	for i, rs := range rows {
		m[i] = result{
			api:    median(rs, func(r result) time.Duration { return r.api }),
			ready:  median(rs, func(r result) time.Duration { return r.ready }),
			bytes:  median(rs, func(r result) int64 { return r.bytes }),
			images: median(rs, func(r result) int64 { return r.images }),
		}
	}
	fmt.Printf("Kubernetes %s, medians of %d\n\n", version, runs)
	fmt.Println("| | API healthy | Ready | written | of these image layers |")
	fmt.Println("|---|---|---|---|---|")
	for i, name := range []string{"a: kbuild-firstboot", "b: kubeadm init, images imported", "c: the floor, files in place"} {
		fmt.Printf("| %s | %.2f s | %.2f s | %s | %s |\n", name, m[i].api.Seconds(), m[i].ready.Seconds(), mib(m[i].bytes), mib(m[i].images))
	}
	for _, i := range []int{1, 2} {
		fmt.Printf("| a/%c | %.2f | %.2f | %.2f | |\n", "abc"[i], ratio(m[0].api, m[i].api), ratio(m[0].ready, m[i].ready), ratio(m[0].bytes, m[i].bytes))
	}
}

func median[T ~int64](rs []result, of func(result) T) T {
	v := make([]T, len(rs))
	for i, r := range rs {
		v[i] = of(r)
	}
	return testvm.Median(v)
}

func ratio[T ~int64](a, b T) float64 { return float64(a) / float64(b) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
