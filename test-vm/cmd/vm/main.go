// Command vm keeps one virtual machine of an image for people to try: it
// starts it in the background, waits until its node is Ready, and says how to
// use it. `make vm` and `make vm-stop` call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	testvm "github.com/kbuild/kbuild/test-vm"
)

const usage = `usage: vm COMMAND [flags]

  up      start the machine, or find it running; wait until its node is Ready
  stop    power it off; its disk stays, and the next up boots from it
  status  say whether it runs and how far its node is
  remove  end it and remove its disk
  clean   end and remove machines that tests left (KEEP=1, or killed)

flags (vm COMMAND --help tells more):
  --image DIR   output directory of kbuild image (up)
  --dir DIR     the machine's directory: disk, console.log, kubeconfig
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("no command given")
	}
	f := flag.NewFlagSet("vm "+args[0], flag.ContinueOnError)
	var o options
	f.StringVar(&o.dir, "dir", "", "the machine's `directory` (default: kbuild/vm in the user's cache directory)")
	if args[0] == "up" {
		f.StringVar(&o.image, "image", "", "output `directory` of kbuild image (needed to start)")
		f.StringVar(&o.userData, "user-data", "", "`file` with user-data in place of the default, which makes a first control plane that pods may run on")
		f.BoolVar(&o.fresh, "fresh", false, "begin with a new disk")
		f.IntVar(&o.memory, "memory", 4096, "memory in MiB")
		f.IntVar(&o.cpus, "cpus", 2, "processors")
		f.IntVar(&o.disk, "disk", 12, "size of a new disk in GiB")
		f.DurationVar(&o.limit, "limit", 0, "how long to wait until the node is Ready (default: 30m, or 2h where the machine is emulated)")
	}
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.dir == "" {
		cache := os.Getenv("KBUILD_CACHE")
		if cache == "" {
			user, err := os.UserCacheDir()
			if err != nil {
				return err
			}
			cache = filepath.Join(user, "kbuild")
		}
		o.dir = filepath.Join(cache, "vm")
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	switch args[0] {
	case "up":
		return up(ctx, o)
	case "stop":
		return stopMachine(ctx, o)
	case "status":
		return status(ctx, o)
	case "remove":
		return remove(o)
	case "clean":
		return testvm.Clean(true, say)
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("unknown command %q", args[0])
}

func stopMachine(ctx context.Context, o options) error {
	m, err := testvm.Attach(o.dir)
	if errors.Is(err, fs.ErrNotExist) {
		say("no machine runs in %s", o.dir)
		return nil
	}
	if err != nil {
		return err
	}
	say("powering the machine off; its power is cut after two minutes")
	err = m.Stop(ctx)
	if running, _ := m.Running(); running {
		return err
	}
	if err != nil {
		say("%v: its power was cut, which a node survives", err)
	}
	say("stopped; its disk stays in %s", o.dir)
	return nil
}

// remove ends the machine and removes its directory, which must be one.
func remove(o options) error {
	m, err := testvm.Attach(o.dir)
	if err == nil {
		err = m.PowerCut()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.dir, "disk.qcow2")); err != nil {
		say("there is no machine in %s", o.dir)
		return nil
	}
	return os.RemoveAll(o.dir)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
