// Package bench is what the programs that measure have in common: their flags,
// Ctrl-C, and an error's way out. What is measured, each says itself; medians are
// compared, of runs that take turns.
package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	testvm "github.com/kbuild/kbuild/test-vm"
)

// Options are what every benchmark is told.
type Options struct {
	Image testvm.Image // what it boots; its version is known
	Runs  int          // how many times each is measured, at least 1
}

// Kubeadm is the flag of a benchmark against real kubeadm of the image's version.
type Kubeadm struct{ path string }

// Flag adds the flag.
func (k *Kubeadm) Flag(f *flag.FlagSet) {
	f.StringVar(&k.path, "kubeadm", "", "`path` of kubeadm of the image's version (default: compiled from its module)")
}

// Path is that of the kubeadm that was named, else of one compiled for the image.
func (k *Kubeadm) Path(ctx context.Context, o Options) (string, error) {
	if k.path != "" {
		return k.path, nil
	}
	return testvm.CompileKubeadm(ctx, o.Image.Version)
}

// Main is the main function of the benchmark named name: it reads the flags, the
// benchmark's own among them, and ends the process with 1 after an error.
func Main(name string, own func(*flag.FlagSet), measure func(context.Context, Options) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, name, os.Args[1:], own, measure)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string, own func(*flag.FlagSet), measure func(context.Context, Options) error) error {
	var o Options
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	dir := f.String("image", os.Getenv("KBUILD_IMAGE"), "output `directory` of kbuild image")
	f.IntVar(&o.Runs, "runs", 3, "how many times each is measured")
	if own != nil {
		own(f)
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("no image: give --image, the output directory of kbuild image, or set KBUILD_IMAGE")
	}
	if o.Runs < 1 {
		return fmt.Errorf("--runs is %d: want 1 or more", o.Runs)
	}
	var err error
	if o.Image, err = testvm.OpenImage(*dir); err != nil {
		return err
	}
	if o.Image.Version == "" {
		return fmt.Errorf("cannot tell the Kubernetes version of %s: it has no manifest.json", *dir)
	}
	return measure(ctx, o)
}
