package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// options are the flags.
type options struct {
	dir, image, userData string
	fresh                bool
	memory, cpus, disk   int
	limit                time.Duration
}

// defaultUserData makes a cluster of one node that the host can reach at its
// own loopback address.
const defaultUserData = `apiVersion: kbuild.dev/v1alpha1
kind: NodeMetadata
role: init
name: kbuild-vm
taints: []
apiServerCertSANs: [127.0.0.1, localhost]
`

// started is vm.json: what later commands must know of the machine.
type started struct {
	APIPort int `json:"apiPort"`
}

func up(ctx context.Context, o options) error {
	if o.fresh {
		if err := remove(o); err != nil {
			return err
		}
	}
	emulated, err := testvm.Emulated(ctx, say)
	if err != nil {
		return err
	}
	m, st, err := find(ctx, o, emulated)
	if err != nil {
		return err
	}
	defer m.Close() // it runs on
	limit := o.limit
	if limit == 0 {
		limit = 30 * time.Minute
		if emulated {
			limit = 2 * time.Hour
		}
	}
	// Measured on two cores: 7m24s emulated, with nothing else to do; 28 minutes
	// with one core busy.
	takes := "a minute or two"
	if emulated {
		takes = "about eight minutes, because this host has no usable KVM and the machine is emulated; half an hour where the host is busy"
	}
	say("waiting for the node, which takes %s (at most %s; Ctrl-C leaves the machine running, make vm-stop ends it)", takes, limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("time is up"))
	defer cancel()
	p := newProgress()
	err = testvm.Wait(ctx, m, p.line, "the node", func(ctx context.Context) (string, error) {
		defer m.Close() // between two questions, vm stop has its turn
		var r guest.Ready
		err := m.Ask(ctx, guest.CmdReady, nil, &r)
		if err == nil && r.Waiting != "" && r.Firstboot != "" {
			return "kbuild-firstboot " + r.Firstboot + "; " + r.Waiting, nil
		}
		return r.Waiting, err
	})
	p.end()
	if running, why := m.Running(); !running {
		return fmt.Errorf("the machine has ended before its node was Ready: %w; make vm boots it again from the same disk, and its console is in %s", why, m.Places().Console)
	}
	if err != nil {
		return fmt.Errorf("%w\nthe machine runs on; its console:\n%s\nall of it: %s", err, testvm.ConsoleTail(m, 30), m.Places().Console)
	}
	kubeconfig := filepath.Join(o.dir, "kubeconfig")
	if err := fetchKubeconfig(ctx, m, st.APIPort, kubeconfig); err != nil {
		return err
	}
	var nodes guest.Exec
	argv := []string{"kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "get", "nodes", "-o", "wide"}
	if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: argv}, &nodes); err != nil {
		return err
	}
	fmt.Print(nodes.Stdout)
	say(`
The node is Ready. With a kubectl on this host:
  export KUBECONFIG=%s
  kubectl get pods -A
Console: %s
The machine runs in the background (process %d, API server at 127.0.0.1:%d).
make vm-stop powers it off; make vm boots it again from the same disk.`,
		kubeconfig, m.Places().Console, m.Places().PID, st.APIPort)
	return nil
}

// find returns the machine: the one that runs already, or one started now.
func find(ctx context.Context, o options, emulated bool) (testvm.Machine, started, error) {
	var st started
	if b, err := os.ReadFile(filepath.Join(o.dir, "vm.json")); err == nil {
		if err := json.Unmarshal(b, &st); err != nil {
			return nil, st, fmt.Errorf("cannot read %s: %w: remove it and the machine with `vm remove`", filepath.Join(o.dir, "vm.json"), err)
		}
	}
	m, err := testvm.Attach(o.dir)
	if err == nil {
		say("the machine in %s runs already (process %d)", o.dir, m.Places().PID)
		return m, st, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, st, err
	}
	if o.image == "" {
		return nil, st, errors.New("cannot start a machine without an image: give --image, the output directory of kbuild image")
	}
	image, err := testvm.OpenImage(o.image)
	if err != nil {
		return nil, st, err
	}
	data := defaultUserData
	if emulated {
		api, err := image.ConfigAPI()
		if err != nil {
			return nil, st, err
		}
		if slow := testvm.SlowControlPlane(api); slow != "" {
			data += "---\n" + slow
		}
	}
	if o.userData != "" {
		b, err := os.ReadFile(o.userData)
		if err != nil {
			return nil, st, fmt.Errorf("cannot read the user-data: %w", err)
		}
		data = string(b)
	}
	if st.APIPort, err = freePort(st.APIPort); err != nil {
		return nil, st, err
	}
	m, err = testvm.New(ctx, testvm.VM, testvm.Options{
		Image: image, Name: "kbuild-vm", UserData: data, Keep: true, Dir: o.dir,
		APIPort: st.APIPort, MemoryMB: o.memory, CPUs: o.cpus, DiskGB: o.disk, Log: say,
	})
	if errors.Is(err, testvm.ErrOtherImage) {
		return nil, st, fmt.Errorf("%w: `make vm FRESH=1` begins anew, and loses what is on its disk", err)
	}
	if err != nil {
		return nil, st, err
	}
	b, err := json.Marshal(st)
	if err == nil {
		err = os.WriteFile(filepath.Join(o.dir, "vm.json"), b, 0o600)
	}
	if err != nil {
		return nil, st, err
	}
	return m, st, m.Start(ctx)
}

// freePort returns a port of the loopback address that nobody listens on: the
// one asked for, else 6443, else any.
func freePort(want int) (int, error) {
	var errs []error
	for _, port := range []int{want, 6443, 0} {
		if port == 0 && want == 0 && errs == nil {
			continue // want itself is missing; 6443 comes first
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	return 0, errors.Join(errs...)
}

// fetchKubeconfig writes the administrator's kubeconfig, with the server's
// address as this host reaches it, for its owner only.
func fetchKubeconfig(ctx context.Context, m testvm.Machine, port int, name string) error {
	var k guest.Kubeconfig
	if err := m.Ask(ctx, guest.CmdKubeconfig, nil, &k); err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(k.Data)) {
		if key, _, ok := strings.Cut(line, "server:"); ok && strings.TrimSpace(key) == "" {
			line = fmt.Sprintf("%sserver: https://127.0.0.1:%d\n", key, port)
		}
		out.WriteString(line)
	}
	tmp := name + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, []byte(out.String()), 0o600); err != nil {
		return fmt.Errorf("cannot write the kubeconfig: %w", err)
	}
	return os.Rename(tmp, name)
}
