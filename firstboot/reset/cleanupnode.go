package reset

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/containerd"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepCleanupNode ends what runs and removes what this machine wrote as a node
// (kubeadm reset phase cleanup-node), secrets with it: nobody may find them who
// gets the disk before it is wiped. The node's configuration goes last.
func stepCleanupNode() converge.Step {
	return converge.Step{
		Name: "cleanup-node",
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			left, err := leftovers(r)
			return err == nil && len(left) == 0, err
		},
		Do: cleanupNode,
	}
}

func cleanupNode(ctx context.Context, r *node.Machine) error {
	m, err := readProgress(r)
	if err != nil {
		return err
	}
	// Without its certificates it cannot speak to the cluster any more.
	m.Left = true
	if err := writeProgress(r, m); err != nil {
		return err
	}
	if err := containerd.RemoveSandboxes(ctx, r.Host); err != nil {
		return err
	}
	if err := undoMounts(ctx, r, kubelet.Dir); err != nil {
		return err
	}
	left, err := leftovers(r)
	for _, name := range left {
		if err == nil {
			err = r.Host.RemoveAll(name)
		}
	}
	return err
}

// leftovers are the files and directories that are still to be removed, in
// order.
func leftovers(r *node.Machine) ([]string, error) {
	dataDir := "/var/lib/etcd"
	if r.Node != nil && r.Node.Cluster.Etcd.Local != nil && r.Node.Cluster.Etcd.Local.DataDir != "" {
		dataDir = r.Node.Cluster.Etcd.Local.DataDir
	}
	var all []string
	// Directories that a boot makes anew stay, and may be links.
	for _, dir := range []string{"/etc/kubernetes/manifests", "/etc/kubernetes", kubelet.Dir, dataDir, "/var/lib/cni", "/etc/cni/net.d", "/var/log/pods", "/var/log/containers", "/var/lib/kbuild"} {
		names, err := r.Host.Entries(dir)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", dir, err)
		}
		for _, n := range names {
			name := path.Join(dir, n)
			if name != node.ResetFile && name != node.ConfigFile && !madeAnew(name) {
				all = append(all, name)
			}
		}
	}
	if r.Host.Exists(node.ConfigFile) {
		all = append(all, node.ConfigFile)
	}
	return all, nil
}

// madeAnew says whether a directory is one of those that the image's
// tmpfiles.d makes at boot, and the read-only root has links to.
func madeAnew(name string) bool {
	return slices.Contains([]string{"/etc/kubernetes/manifests", "/var/lib/kbuild/kubernetes", "/var/lib/kbuild/cni", "/var/lib/kbuild/opt-cni"}, name)
}

// undoMounts undoes what is mounted below a directory: volumes of pods.
func undoMounts(ctx context.Context, r *node.Machine, dir string) error {
	b, err := r.Host.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("cannot list the machine's mounts: %w", err)
	}
	below := mountsBelow(b, dir)
	slices.Reverse(below) // the later ones lie on the earlier
	for _, m := range below {
		err := r.Host.Do("umount "+m, func() error {
			_, err := r.Host.Run(ctx, "umount", m)
			return err
		})
		if err != nil {
			r.Host.Log.Warn("a mount is in use and is detached (lazy unmount)", slog.String("mount", m), slog.Any("error", err))
			if _, err := r.Host.Run(ctx, "umount", "--lazy", m); err != nil {
				return outcome.Retry{After: time.Second, Why: err.Error()}
			}
		}
	}
	return nil
}

// mountsBelow are the mount points below a directory, in the order of
// /proc/self/mountinfo (proc(5)).
func mountsBelow(mountinfo []byte, dir string) []string {
	var points []string
	s := bufio.NewScanner(bytes.NewReader(mountinfo))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 5 {
			continue
		}
		p := unoctal.Replace(f[4])
		if strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	return points
}

var unoctal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
