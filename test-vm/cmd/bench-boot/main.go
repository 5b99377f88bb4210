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
		fmt.Fprintln(os.Stderr, "bench-boot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench-boot", flag.ContinueOnError)
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
	if image.Version == "" {
		return fmt.Errorf("cannot tell the Kubernetes version of %s: it has no manifest.json", *dir)
	}
	if *kubeadm == "" {
		if *kubeadm, err = testvm.CompileKubeadm(ctx, image.Version); err != nil {
			return err
		}
	}
	b := bench{image: image, kubeadm: *kubeadm}
	defer func() { os.Remove(b.state) }()
	var rows [3][]result
	for i := range *runs {
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
	report(image.Version, *runs, rows)
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
