package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbuild/kbuild/images"
	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// machines holds what the three measurements share.
type machines struct {
	image   testvm.Image
	kubeadm string
	state   string // tar file of a finished node's files, from the first run of a
}

const nodeName = "bench"

// files are what c finds in place, relative to /: everything that an init
// leaves on the disk but etcd's data and the images. For b, only the pod
// network's configuration is taken of it.
const (
	allFiles = "etc/kubernetes/. var/lib/kubelet/config.yaml var/lib/kubelet/kubeadm-flags.env var/lib/kubelet/pki etc/cni/net.d"
	cniFiles = "etc/cni/net.d"
)

// firstboot measures a. The first run leaves the files of its node for b and c.
func (b *machines) firstboot(ctx context.Context) (result, error) {
	m, err := b.boot(ctx)
	if err != nil {
		return result{}, err
	}
	defer m.Close()
	r, err := timed(ctx, m, []string{"sh", "-c", testvm.FirstbootScript})
	if err != nil || b.state != "" {
		return r, err
	}
	// The unit goes on after Ready; what it leaves must be whole.
	if err := testvm.Until(ctx, m, "systemctl is-active --quiet kbuild-firstboot.service"); err != nil {
		return r, err
	}
	if err := sh(ctx, m, "tar -C / -cf "+guest.Dir+"/state.tar "+allFiles); err != nil {
		return r, err
	}
	f, err := os.CreateTemp("", "kbuild-bench-")
	if err != nil {
		return r, err
	}
	b.state = f.Name() // holds keys: CreateTemp makes it for its owner only; run removes it
	defer f.Close()
	in, err := os.Open(filepath.Join(m.Places().Dir, "share", "state.tar"))
	if err != nil {
		return r, err
	}
	defer in.Close()
	_, err = io.Copy(f, in)
	return r, err
}

// init measures b.
func (b *machines) init(ctx context.Context) (result, error) {
	m, err := b.bootWithImages(ctx, cniFiles)
	if err != nil {
		return result{}, err
	}
	defer m.Close()
	config, err := b.kubeadmConfig()
	if err != nil {
		return result{}, err
	}
	if err := os.WriteFile(filepath.Join(m.Places().Dir, "share", "kubeadm.yaml"), []byte(config), 0o600); err != nil {
		return result{}, err
	}
	// In a unit of its own, for the time it takes is taken from the cluster's
	// side, as in the others.
	return timed(ctx, m, []string{"systemd-run", "--quiet", "--unit=kubeadm", testvm.KubeadmProgram, "init",
		"--skip-phases=preflight", "--config=" + guest.Dir + "/kubeadm.yaml"})
}

// floor measures c.
func (b *machines) floor(ctx context.Context) (result, error) {
	m, err := b.bootWithImages(ctx, allFiles)
	if err != nil {
		return result{}, err
	}
	defer m.Close()
	return timed(ctx, m, []string{"systemctl", "start", "--no-block", "kubelet.service"})
}

func (b *machines) userData() (string, error) {
	r, err := images.Assume(b.image.Version)
	if err != nil {
		return "", err
	}
	return "apiVersion: kubeadm.k8s.io/" + r.ConfigAPI + "\nkind: InitConfiguration\nnodeRegistration:\n  name: " + nodeName + "\n---\n" + testvm.ContainerUserData(r), nil
}

// kubeadmConfig is what kubeadm needs to be told to make the same cluster.
func (b *machines) kubeadmConfig() (string, error) {
	user, err := b.userData()
	if err != nil {
		return "", err
	}
	r, err := images.Assume(b.image.Version)
	if err != nil {
		return "", err
	}
	init := strings.Replace(user, "nodeRegistration:\n", "localAPIEndpoint:\n  advertiseAddress: "+testvm.ContainerAddress+
		"\nnodeRegistration:\n  criSocket: /run/containerd/containerd.sock\n", 1)
	return init + "---\napiVersion: kubeadm.k8s.io/" + r.ConfigAPI + "\nkind: ClusterConfiguration\nkubernetesVersion: " + b.image.Version +
		"\nnetworking:\n  podSubnet: 10.244.0.0/16\n", nil
}

// options are those of a fresh container.
func (b *machines) options() (testvm.Options, error) {
	data, err := b.userData()
	return testvm.Options{Image: b.image, Name: nodeName, UserData: data, Log: func(string, ...any) {}}, err
}

// boot boots one in which kbuild-firstboot does not start by itself.
func (b *machines) boot(ctx context.Context) (testvm.Machine, error) {
	o, err := b.options()
	if err != nil {
		return nil, err
	}
	return testvm.NewIdle(ctx, o)
}

// bootWithImages boots a container whose runtime holds the images, and lays
// files of the finished node into it.
func (b *machines) bootWithImages(ctx context.Context, files string) (testvm.Machine, error) {
	if b.state == "" {
		return nil, errors.New("no finished node's files yet")
	}
	o, err := b.options()
	if err != nil {
		return nil, err
	}
	m, err := testvm.NewKubeadm(ctx, o, b.kubeadm)
	if err != nil {
		return nil, err
	}
	err = testvm.Lay(m, b.state, "state.tar", 0o600)
	if err == nil {
		err = sh(ctx, m, "tar -C / --keep-directory-symlink -xf "+guest.Dir+"/state.tar "+files+" && sync")
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// timed runs argv in the machine and waits until the node is Ready. The clock
// of a container is the host's.
func timed(ctx context.Context, m testvm.Machine, argv []string) (result, error) {
	var r result
	var t guest.Times
	if err := m.Ask(ctx, guest.CmdTimes, nil, &t); err != nil {
		return r, err
	}
	before, err := testvm.Written(m)
	if err != nil {
		return r, err
	}
	start := time.Now()
	var e guest.Exec
	if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: argv}, &e); err != nil {
		return r, err
	}
	if e.Code != 0 {
		return r, fmt.Errorf("%s: exit status %d: %s%s", strings.Join(argv, " "), e.Code, e.Stdout, e.Stderr)
	}
	limit, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	err = testvm.Wait(limit, m, func(string, ...any) {}, "Ready", func(ctx context.Context) (string, error) {
		if err := m.Ask(ctx, guest.CmdTimes, nil, &t); err != nil || !t.Ready.IsZero() {
			return "", err
		}
		return "not yet", nil
	})
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, testvm.ConsoleTail(m, 60))
	}
	r.api, r.ready = t.API.Sub(start), t.Ready.Sub(start)
	if err := sh(ctx, m, "sync"); err != nil {
		return r, err
	}
	after, err := testvm.Written(m)
	r.bytes = after - before
	var i guest.Images
	if err == nil {
		err = m.Ask(ctx, guest.CmdImages, nil, &i)
	}
	r.images = i.LayerBytes
	return r, err
}

func sh(ctx context.Context, m testvm.Machine, script string) error {
	_, err := testvm.Sh(ctx, m, script)
	return err
}
