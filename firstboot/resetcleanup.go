package firstboot

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

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepCleanupNode ends what runs and removes what this machine wrote as a node
// (kubeadm reset phase cleanup-node), secrets with it: nobody may find them who
// gets the disk before it is wiped. The node's configuration goes last.
func stepCleanupNode() Step {
	return Step{
		Name: "cleanup-node",
		Done: func(_ context.Context, r *Run) (bool, error) {
			left, err := leftovers(r)
			return err == nil && len(left) == 0, err
		},
		Do: cleanupNode,
	}
}

func cleanupNode(ctx context.Context, r *Run) error {
	m, err := readReset(r)
	if err != nil {
		return err
	}
	// Without its certificates it cannot speak to the cluster any more.
	m.Left = true
	if err := writeReset(r, m); err != nil {
		return err
	}
	if err := removeSandboxes(ctx, r, containerdSocket); err != nil {
		return err
	}
	if err := undoMounts(ctx, r, kubeletDir); err != nil {
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
func leftovers(r *Run) ([]string, error) {
	dataDir := "/var/lib/etcd"
	if r.Node != nil && r.Node.Cluster.Etcd.Local != nil && r.Node.Cluster.Etcd.Local.DataDir != "" {
		dataDir = r.Node.Cluster.Etcd.Local.DataDir
	}
	var all []string
	// Directories that a boot makes anew stay, and may be links.
	for _, dir := range []string{"/etc/kubernetes/manifests", "/etc/kubernetes", kubeletDir, dataDir, "/var/lib/cni", "/etc/cni/net.d", "/var/log/pods", "/var/log/containers", "/var/lib/kbuild"} {
		names, err := r.Host.Entries(dir)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", dir, err)
		}
		for _, n := range names {
			name := path.Join(dir, n)
			if name != resetFile && name != nodeFile && !madeAnew(name) {
				all = append(all, name)
			}
		}
	}
	if r.Host.Exists(nodeFile) {
		all = append(all, nodeFile)
	}
	return all, nil
}

// madeAnew says whether a directory is one of those that the image's
// tmpfiles.d makes at boot, and the read-only root has links to.
func madeAnew(name string) bool {
	return slices.Contains([]string{"/etc/kubernetes/manifests", "/var/lib/kbuild/kubernetes", "/var/lib/kbuild/cni", "/var/lib/kbuild/opt-cni"}, name)
}

// removeSandboxes removes every pod that the container runtime has, by CRI. A
// runtime that does not run has none that would outlive the reboot.
func removeSandboxes(ctx context.Context, r *Run, socket string) error {
	if !r.Host.Exists(socket) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := handover{host: r.Host, socket: socket}.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rt := cri.NewRuntimeServiceClient(c.conn)
	pods, err := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return outcome.Retry{After: time.Second, Why: fmt.Sprintf("cannot list the pods of this machine: %v", err)}
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, p := range pods.Items {
		g.Go(func() error {
			name := p.Metadata.GetNamespace() + "/" + p.Metadata.GetName()
			return r.Host.Do("remove pod "+name, func() error {
				_, err := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id})
				if err == nil {
					_, err = rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id})
				}
				if err != nil {
					return outcome.Retry{After: time.Second, Why: fmt.Sprintf("cannot remove pod %s: %v", name, err)}
				}
				return nil
			})
		})
	}
	return g.Wait()
}

// undoMounts undoes what is mounted below a directory: volumes of pods.
func undoMounts(ctx context.Context, r *Run, dir string) error {
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
			r.Host.Log.Warn("a mount is in use and is taken out of sight", slog.String("mount", m), slog.Any("error", err))
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
