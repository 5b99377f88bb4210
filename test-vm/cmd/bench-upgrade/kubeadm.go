package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kbuild/kbuild/images"
	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// kubeadm upgrades machines as is done by hand: what it finds on each of them is
// prepared before the clock starts.
type kubeadm struct {
	old, next testvm.Image
	dir       string // holds the rest
	programs  [2]string
}

// Files of the new version in a machine.
const (
	archiveFile = "images.tar" // its container images
	kubeletFile = "kubelet"
)

func newKubeadm(ctx context.Context, old, next testvm.Image) (*kubeadm, error) {
	dir, err := os.MkdirTemp("", "kbuild-bench-")
	if err != nil {
		return nil, err
	}
	k := &kubeadm{old: old, next: next, dir: dir}
	if err := k.prepare(ctx); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kubeadm) close() error { return os.RemoveAll(k.dir) }

func (k *kubeadm) prepare(ctx context.Context) error {
	for i, version := range []string{k.old.Version, k.next.Version} {
		var err error
		if k.programs[i], err = testvm.CompileKubeadm(ctx, version); err != nil {
			return err
		}
	}
	root := filepath.Join(k.dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "mount", "-t", "erofs", "-o", "loop,ro", k.next.Root, root).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot mount %s: %w: %s", k.next.Root, err, out)
	}
	err := archive(filepath.Join(root, images.StoreDir), filepath.Join(k.dir, archiveFile))
	if err == nil {
		err = copyFile(filepath.Join(root, "usr/bin/kubelet"), filepath.Join(k.dir, kubeletFile))
	}
	if out, uerr := exec.Command("umount", root).CombinedOutput(); uerr != nil {
		err = errors.Join(err, fmt.Errorf("cannot unmount %s: %w: %s", root, uerr, out))
	}
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// archive packs the container images of a store again, as a runtime imports
// them. Their layers' digests are others then; nobody asks for them.
func archive(store, out string) error {
	index, err := layout.ImageIndexFromPath(store)
	if err != nil {
		return err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return err
	}
	all := map[name.Reference]v1.Image{}
	for _, d := range list.Manifests {
		baked, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		config, err := baked.ConfigFile()
		if err != nil {
			return err
		}
		own := config.DeepCopy()
		own.RootFS.DiffIDs, own.History = nil, nil
		img, err := mutate.ConfigFile(empty.Image, own)
		if err != nil {
			return err
		}
		for _, id := range config.RootFS.DiffIDs {
			l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return tarOf(filepath.Join(store, "layers", id.Hex)) },
				tarball.WithCompression(compression.None))
			if err != nil {
				return err
			}
			if img, err = mutate.AppendLayers(img, l); err != nil {
				return err
			}
		}
		ref, err := name.ParseReference(d.Annotations[images.RefAnnotation])
		if err != nil {
			return err
		}
		all[ref] = img
	}
	return tarball.MultiRefWriteToFile(out, all)
}

// tarOf packs a directory.
func tarOf(dir string) (io.ReadCloser, error) {
	cmd := exec.Command("tar", "-C", dir, "--sort=name", "-c", ".")
	r, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return tarred{r, cmd}, cmd.Start()
}

type tarred struct {
	io.ReadCloser
	cmd *exec.Cmd
}

func (t tarred) Close() error { return errors.Join(t.ReadCloser.Close(), t.cmd.Wait()) }

// upgrade measures d, on a cluster of its own.
func (k *kubeadm) upgrade(ctx context.Context) (result, error) {
	m, err := k.cluster(ctx)
	if err != nil {
		return result{}, err
	}
	defer m.Close()
	stop, err := testvm.WatchAPI(m)
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	// What a runtime with nowhere to pull from does not pass is left out; with
	// the same hand it is made easier.
	if err = unit(ctx, m, "upgrade", "--setenv=PATH="+guest.Dir+":/usr/sbin:/usr/bin "+testvm.KubeadmProgram+" upgrade apply "+k.next.Version+" --yes --force --ignore-preflight-errors=all"); err == nil {
		if _, err = testvm.Sh(ctx, m, "mount --bind "+guest.Dir+"/"+kubeletFile+" /usr/bin/kubelet && systemctl restart kubelet.service"); err == nil {
			err = testvm.Until(ctx, m, kubectl+"get node bench --output=jsonpath={.status.nodeInfo.kubeletVersion} | grep -qxF "+k.next.Version+
				" && "+kubectl+"wait --for=condition=Ready --timeout=1s node bench && "+kubectl+"get --raw /version | grep -qF "+k.next.Version)
		}
	}
	return result{whole: time.Since(start), away: stop()}, err
}

const kubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf "

// podNetwork is of one node, without an agent.
const podNetwork = `{"cniVersion":"0.3.1","name":"bench","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","subnet":"10.244.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}`

// cluster makes a cluster of the old version with kubeadm, on a machine that has
// all that the upgrade needs.
func (k *kubeadm) cluster(ctx context.Context) (testvm.Machine, error) {
	data, err := userData(k.old)
	if err != nil {
		return nil, err
	}
	m, err := testvm.NewKubeadm(ctx, testvm.Options{Image: k.old, Name: "bench", UserData: data, Log: quiet}, k.programs[0])
	if err != nil {
		return nil, err
	}
	for _, file := range []string{archiveFile, kubeletFile} {
		if err == nil {
			err = copyFile(filepath.Join(k.dir, file), filepath.Join(m.Places().Dir, "share", file))
		}
	}
	if err == nil {
		// kubeadm asks crictl whether images are there, whatever it is told to
		// ignore; they are.
		err = os.WriteFile(filepath.Join(m.Places().Dir, "share", "crictl"), []byte("#!/bin/sh\nexit 0\n"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.Places().Dir, "share", "kubeadm.yaml"), []byte(k.config(data)), 0o600)
	}
	if err == nil {
		err = unit(ctx, m, "import", "ctr --namespace=k8s.io images import "+guest.Dir+"/"+archiveFile)
	}
	if err == nil {
		// kubeadm waits without end for CoreDNS to be ready before it goes on.
		_, err = testvm.Sh(ctx, m, "mkdir -p /etc/cni/net.d && echo '"+podNetwork+"' >/etc/cni/net.d/10-bench.conf")
	}
	if err == nil {
		err = unit(ctx, m, "init", testvm.KubeadmProgram+" init --skip-phases=preflight --config="+guest.Dir+"/kubeadm.yaml")
	}
	if err == nil {
		err = testvm.Until(ctx, m, kubectl+"wait --for=condition=Ready --timeout=1s node bench && "+
			kubectl+"--namespace=kube-system wait --for=condition=Available --timeout=1s deployment coredns")
	}
	if err == nil {
		err = testvm.LayKubeadm(m, k.programs[1])
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// config is kubeadm's, for the cluster that kbuild makes of the user-data.
func (k *kubeadm) config(userData string) string {
	api, _, _ := strings.Cut(userData, "\n")
	return strings.Replace(userData, "nodeRegistration:\n", "localAPIEndpoint:\n  advertiseAddress: "+testvm.ContainerAddress+
		"\nnodeRegistration:\n  criSocket: /run/containerd/containerd.sock\n", 1) +
		"---\n" + api + "\nkind: ClusterConfiguration\nkubernetesVersion: " + k.old.Version + "\nnetworking:\n  podSubnet: 10.244.0.0/16\n"
}

// unit runs a command as a unit of its own to its end.
func unit(ctx context.Context, m testvm.Machine, name, command string) error {
	if _, err := testvm.Sh(ctx, m, "systemd-run --quiet --unit=bench-"+name+" --property=Type=oneshot --property=RemainAfterExit=yes --no-block "+command); err != nil {
		return err
	}
	err := testvm.Until(ctx, m, "systemctl is-active bench-"+name+".service | grep -qxE 'active|failed'")
	if err == nil {
		_, err = testvm.Sh(ctx, m, "systemctl is-active --quiet bench-"+name+".service || { journalctl --no-pager --output=cat --lines=40 --unit=bench-"+name+".service; exit 1; }")
	}
	return err
}
