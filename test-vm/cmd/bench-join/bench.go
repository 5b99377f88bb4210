package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kbuild/kbuild/images"
	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// token is the cluster's; it lives as long as the run.
const token = "kbuild.4aekgvwh7qkms9kr"

// conflist is the pod network's CNI configuration.
const conflist = "/etc/cni/net.d/10-flannel.conflist"

// joins is a cluster of one control plane, and what joining it takes.
type joins struct {
	image    testvm.Image
	release  images.Release
	kubeadm  string
	net      *testvm.Network
	first    testvm.Machine
	endpoint string
	pin      string
	cni      string
}

func quiet(string, ...any) {}

func begin(ctx context.Context, image testvm.Image, kubeadm string) (_ *joins, err error) {
	r, err := images.Assume(image.Version)
	if err != nil {
		return nil, err
	}
	b := &joins{image: image, release: r, kubeadm: kubeadm}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.net, err = testvm.NewNetwork(testvm.Container, false, quiet); err != nil {
		return nil, err
	}
	b.endpoint = b.net.Address(2) + ":6443"
	b.first, err = testvm.New(ctx, testvm.Container, b.options(2, "cp", "init", ""))
	if err != nil {
		return nil, err
	}
	if err := b.first.Start(ctx); err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	if err := testvm.WaitReady(limit, b.first, quiet); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, testvm.ConsoleTail(b.first, 60))
	}
	cert, err := testvm.Sh(ctx, b.first, "cat /etc/kubernetes/pki/ca.crt")
	if err != nil {
		return nil, err
	}
	if b.pin, err = pin([]byte(cert)); err != nil {
		return nil, err
	}
	b.cni, err = testvm.Sh(ctx, b.first, "cat "+conflist)
	return b, err
}

func (b *joins) close() {
	if b.first != nil {
		b.first.Close()
	}
	if b.net != nil {
		b.net.Close()
	}
}

// pin is the hash of the authority's public key.
func pin(cert []byte) (string, error) {
	p, _ := pem.Decode(cert)
	if p == nil {
		return "", fmt.Errorf("cannot pin the cluster's authority: no certificate in %q", cert)
	}
	c, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo)), nil
}

// options are those of a fresh container with the network's k-th address.
func (b *joins) options(k int, name, role, fields string) testvm.Options {
	return testvm.Options{
		Image: b.image, Name: name, Network: b.net, Address: b.net.Address(k), Log: quiet,
		UserData: "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: " + role + "\nname: " + name + "\naddress: " + b.net.Address(k) +
			"\nendpoint: " + b.endpoint + "\ntoken: " + token + "\n" + fields + "---\n" + testvm.ContainerUserData(b.release),
	}
}

// firstboot measures a.
func (b *joins) firstboot(ctx context.Context, name string) (time.Duration, error) {
	m, err := testvm.NewIdle(ctx, b.options(3, name, "worker", "caCertHashes: ["+b.pin+"]\n"))
	if err != nil {
		return 0, err
	}
	defer m.Close()
	return b.timed(ctx, m, name, []string{"sh", "-c", testvm.FirstbootScript})
}

// join measures b.
func (b *joins) join(ctx context.Context, name string) (time.Duration, error) {
	m, err := testvm.NewKubeadm(ctx, b.options(3, name, "init", ""), b.kubeadm)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if err := os.WriteFile(filepath.Join(m.Places().Dir, "share", "cni"), []byte(b.cni), 0o600); err != nil {
		return 0, err
	}
	if _, err := testvm.Sh(ctx, m, "cp "+guest.Dir+"/cni "+conflist+" && sync"); err != nil {
		return 0, err
	}
	return b.timed(ctx, m, name, []string{"systemd-run", "--quiet", "--unit=kubeadm", testvm.KubeadmProgram, "join", b.endpoint,
		"--skip-phases=preflight", "--cri-socket=/run/containerd/containerd.sock", "--token=" + token, "--discovery-token-ca-cert-hash=" + b.pin})
}

// timed runs argv in the machine and waits until the control plane sees the
// node Ready; then it takes the node out of the cluster again. The clock of a
// container is the host's.
func (b *joins) timed(ctx context.Context, m testvm.Machine, node string, argv []string) (time.Duration, error) {
	var t guest.Times
	if err := b.first.Ask(ctx, guest.CmdTimes, guest.TimesArgs{Node: node}, &t); err != nil {
		return 0, err
	}
	start := time.Now()
	var e guest.Exec
	if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: argv}, &e); err != nil {
		return 0, err
	}
	if e.Code != 0 {
		return 0, fmt.Errorf("%q: exit status %d: %s%s", argv, e.Code, e.Stdout, e.Stderr)
	}
	limit, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("time is up"))
	defer cancel()
	err := testvm.Wait(limit, m, quiet, "Ready", func(ctx context.Context) (string, error) {
		if err := b.first.Ask(ctx, guest.CmdTimes, guest.TimesArgs{Node: node}, &t); err != nil || !t.Ready.IsZero() {
			return "", err
		}
		return "not yet", nil
	})
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, testvm.ConsoleTail(m, 60))
	}
	_, err = testvm.Sh(ctx, b.first, "kubectl --kubeconfig=/etc/kubernetes/admin.conf delete node "+node)
	return t.Ready.Sub(start), err
}
