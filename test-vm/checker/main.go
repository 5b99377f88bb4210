// Command checker runs inside a test machine and reports what it finds there. It
// is not part of any image: the harness puts it into the machine (see package
// testvm).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if filepath.Base(os.Args[0]) == "kbuild-firstboot" {
		if err := standIn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "kbuild-firstboot:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "checker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: checker serve --port FILE | serve --socket PATH | prepare | relay HOST:PORT | answer ADDRESS | ask CMD [JSON]")
	}
	switch args[0] {
	case "serve":
		fs := flag.NewFlagSet("serve", flag.ContinueOnError)
		port := fs.String("port", "", "virtio-serial port to answer on")
		socket := fs.String("socket", "", "unix socket to answer on")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		if *port != "" {
			return servePort(ctx, *port)
		}
		return serveSocket(ctx, *socket)
	case "prepare":
		return prepare()
	case "relay": // on the host
		if len(args) != 2 {
			return fmt.Errorf("usage: checker relay HOST:PORT")
		}
		return relay(ctx, args[1], os.Stdin, os.Stdout)
	case "answer": // in a pod
		if len(args) != 2 {
			return fmt.Errorf("usage: checker answer ADDRESS")
		}
		return answer(ctx, args[1])
	case "ask": // by hand, in the machine
		if len(args) < 2 {
			return fmt.Errorf("usage: checker ask CMD [JSON]")
		}
		h, ok := handlers()[args[1]]
		if !ok {
			return fmt.Errorf("unknown request %q", args[1])
		}
		var in json.RawMessage
		if len(args) > 2 {
			in = json.RawMessage(args[2])
		}
		v, err := h(ctx, in)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(v)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func handlers() map[string]guest.Handler {
	watch := stopwatches{seen: map[string]*guest.Times{}}
	return map[string]guest.Handler{
		guest.CmdPing: func(context.Context, json.RawMessage) (any, error) {
			b, err := bootTime()
			return guest.Ping{Boot: b}, err
		},
		guest.CmdReady:  func(ctx context.Context, _ json.RawMessage) (any, error) { return ready(ctx) },
		guest.CmdPod:    with(pod),
		guest.CmdPods:   with(pods),
		guest.CmdDisk:   func(ctx context.Context, _ json.RawMessage) (any, error) { return disk() },
		guest.CmdTree:   func(ctx context.Context, _ json.RawMessage) (any, error) { return tree(ctx) },
		guest.CmdImages: func(ctx context.Context, _ json.RawMessage) (any, error) { return images(ctx) },
		guest.CmdExec:   with(execute),
		guest.CmdTimes:  with(watch.times),
		guest.CmdKubeconfig: func(context.Context, json.RawMessage) (any, error) {
			b, err := os.ReadFile(adminConf)
			return guest.Kubeconfig{Data: b}, err
		},
	}
}

// with makes a handler of a function with typed arguments.
func with[A, R any](f func(context.Context, A) (R, error)) guest.Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var a A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &a); err != nil {
				return nil, err
			}
		}
		return f(ctx, a)
	}
}

func serveSocket(ctx context.Context, path string) error {
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	answers := handlers()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			guest.Serve(ctx, c, answers)
		}()
	}
}

// servePort answers on a virtio-serial port. A read from one returns nothing
// while no harness is connected to the other side.
func servePort(ctx context.Context, path string) error {
	var f *os.File
	for ctx.Err() == nil {
		var err error
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "checker:", err)
		sleep(ctx, time.Second)
	}
	if f == nil {
		return nil
	}
	context.AfterFunc(ctx, func() { os.Exit(0) }) // a read cannot be called off
	answers := handlers()
	for ctx.Err() == nil {
		if err := guest.Serve(ctx, f, answers); err != nil {
			fmt.Fprintln(os.Stderr, "checker:", err)
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
