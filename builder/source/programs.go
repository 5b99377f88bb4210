package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// Programs makes dir a directory of a version's programs for this machine,
// under their own names: what tests run an API server and upstream's kubeadm
// with. Beside them is the containerd 2 of newer versions, whatever the version:
// the tests of the hand-over run both it and Debian's. They are links into the
// cache.
func Programs(ctx context.Context, c Config, version, dir string, log progress.Log) error {
	c, err := c.withCache()
	if err != nil {
		return err
	}
	r, err := images.Lookup(version)
	if err != nil {
		return err
	}
	kube, err := kubeBuild(r, time.Unix(0, 0)) // nothing of it goes into an image
	if err != nil {
		return err
	}
	etcd, err := etcdBuild(r.Etcd)
	if err != nil {
		return err
	}
	links := map[string]string{}
	for _, b := range append(containerdBuilds(), kube, etcd) {
		at, err := (compiler{c.store(), hostArch}).compile(ctx, b, log)
		if err != nil {
			return err
		}
		for name := range b.Programs {
			links[name] = filepath.Join(at, name)
		}
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"} {
		links[name] = links["kube"]
	}
	if links["kubeadm"], err = Kubeadm(ctx, c, version, log); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make a directory of programs: %w", err)
	}
	for name, target := range links {
		link := filepath.Join(dir, name)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot replace %s: %w", link, err)
		}
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("cannot link a program: %w", err)
		}
	}
	return nil
}
