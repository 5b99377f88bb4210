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
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			left, err := leftovers(m)
			return err == nil && len(left) == 0, err
		},
		Do: cleanupNode,
	}
}

func cleanupNode(ctx context.Context, m *node.Machine) error {
	p, err := readProgress(m)
	if err != nil {
		return err
	}
	// Without its certificates it cannot speak to the cluster any more.
	p.Left = true
	if err := writeProgress(m, p); err != nil {
		return err
	}
	if err := containerd.RemoveSandboxes(ctx, m.Host); err != nil {
		return err
	}
	if err := undoMounts(ctx, m, kubelet.Dir); err != nil {
		return err
	}
	left, err := leftovers(m)
	for _, name := range left {
		if err == nil {
			err = m.Host.RemoveAll(name)
		}
	}
	return err
}

// leftovers are the files and directories that are still to be removed, in
// order.
func leftovers(m *node.Machine) ([]string, error) {
	dataDir := "/var/lib/etcd"
	if m.Node != nil && m.Node.Cluster.Etcd.Local != nil && m.Node.Cluster.Etcd.Local.DataDir != "" {
		dataDir = m.Node.Cluster.Etcd.Local.DataDir
	}
	var all []string
	// Directories that a boot makes anew stay, and may be links.
	for _, dir := range []string{"/etc/kubernetes/manifests", "/etc/kubernetes", kubelet.Dir, dataDir, "/var/lib/cni", "/etc/cni/net.d", "/var/log/pods", "/var/log/containers", "/var/lib/kbuild"} {
		names, err := m.Host.Entries(dir)
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
	if m.Host.Exists(node.ConfigFile) {
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
func undoMounts(ctx context.Context, m *node.Machine, dir string) error {
	b, err := m.Host.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("cannot list the machine's mounts: %w", err)
	}
	below := mountsBelow(b, dir)
	slices.Reverse(below) // the later ones lie on the earlier
	for _, point := range below {
		err := m.Host.Do("umount "+point, func() error {
			_, err := m.Host.Run(ctx, "umount", point)
			return err
		})
		if err != nil {
			m.Host.Log.Warn("a mount is in use and is detached (lazy unmount)", slog.String("mount", point), slog.Any("error", err))
			if _, err := m.Host.Run(ctx, "umount", "--lazy", point); err != nil {
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
