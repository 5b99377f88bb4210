package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// treeRoots is what a reboot must leave as it is: everything that makes this
// machine this node. (Symbolic links in a root's own path are followed; links
// below it are reported as links.)
var treeRoots = [...]string{
	"/etc/machine-id",
	"/etc/kubernetes",
	"/var/lib/kbuild",
	"/var/lib/kubelet/config.yaml",
	"/var/lib/kubelet/kubeadm-flags.env",
	"/var/lib/kubelet/pki",
	"/etc/cni/net.d",
}

// tree reports every file below treeRoots with its mode, owner and hash, and with
// its time of change where it may not even be written again with the same
// content. It also reports the API objects that an init makes, with their
// versions.
func tree(ctx context.Context) (guest.Tree, error) {
	t := guest.Tree{}
	for _, root := range treeRoots {
		real, err := filepath.EvalSymlinks(root)
		if errors.Is(err, fs.ErrNotExist) {
			t[root] = "missing"
			continue
		}
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := root + strings.TrimPrefix(p, real)
			t[name], err = describe(p, rewritten(p))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return t, objects(ctx, t)
}

// rewritten says whether p may be written at every boot with the same bytes.
// Each boot mounts the machine ID over the read-only root; the pod network's
// installer writes its configuration and its plugins.
func rewritten(p string) bool {
	return p == "/etc/machine-id" || strings.HasPrefix(p, "/var/lib/kbuild/cni") || strings.HasPrefix(p, "/var/lib/kbuild/opt-cni")
}

func describe(p string, anyTime bool) (string, error) {
	st, err := os.Lstat(p)
	if err != nil {
		return "", err
	}
	s := st.Mode().String()
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(p)
		return s + " -> " + to, err
	case st.IsDir():
		return s, nil
	case !st.Mode().IsRegular():
		return s, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	s += fmt.Sprintf(" %x", h.Sum(nil))
	if !anyTime {
		s += st.ModTime().UTC().Format(" 2006-01-02T15:04:05.000000000Z")
	}
	return s, nil
}

func objects(ctx context.Context, t guest.Tree) error {
	k, err := connect()
	if err != nil {
		return err
	}
	for _, ns := range []string{"kube-system", "kube-public", "kube-flannel"} {
		maps, err := k.core.ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, m := range maps.Items {
			// Leader elections of old versions live in ConfigMaps' annotations and
			// Endpoints, and the CA's map is the controller manager's.
			if m.Annotations["control-plane.alpha.kubernetes.io/leader"] == "" {
				t["api:ConfigMap/"+ns+"/"+m.Name] = string(m.UID) + " " + m.ResourceVersion
			}
		}
		sets, err := k.apps.DaemonSets(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, d := range sets.Items {
			t["api:DaemonSet/"+ns+"/"+d.Name] = fmt.Sprintf("%s generation %d", d.UID, d.Generation)
		}
		deps, err := k.apps.Deployments(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, d := range deps.Items {
			t["api:Deployment/"+ns+"/"+d.Name] = fmt.Sprintf("%s generation %d", d.UID, d.Generation)
		}
	}
	nodes, err := k.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		t["api:Node/"+n.Name] = fmt.Sprintf("%s machine %s", n.UID, n.Status.NodeInfo.MachineID)
	}
	return nil
}
