// Package upgrade is what the first boots of another image are about: may this
// node move to the image's version, what is backed up before, is it well
// afterwards, and what is told and cleared away when it is, or has fallen back.
//
// What always holds: nothing of a node changes before its backup is whole; the
// frozen configuration is written last, forward and back, and is what commits the
// move; and whether the node may go back is asked in one place.
package upgrade

import (
	"context"
	"errors"
	"log/slog"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/templates"
)

// VersionPolicyStep makes a node of one Kubernetes version a node of this
// image's, before anything of it runs: on the first boot of another image.
//
// Forward, it keeps a copy of what this image will change, takes away what
// must be made anew (static pods, whose images only the other slot has, and
// the certificates that kubeadm renews), and writes the frozen configuration
// in the new version last. That one file is the commit: before it the node is
// of the old version and its copy complete, after it the list is the same run
// as any first boot. Back, it puts the copy in place, the frozen configuration
// last again.
func VersionPolicyStep() converge.Step {
	return converge.Step{Name: "version-policy", Done: versionRight, Do: moveVersion}
}

// frozenVersion is the Kubernetes version of the frozen configuration; empty
// where there is none. An image that is older than the one that wrote it need
// not understand the rest.
func frozenVersion(m *node.Machine) (string, error) {
	n, err := host.ReadJSON[struct {
		Cluster struct {
			KubernetesVersion string `json:"kubernetesVersion"`
		} `json:"cluster"`
	}](

		m.Host, node.ConfigFile)

	return n.Cluster.KubernetesVersion, err
}

func versionRight(_ context.Context, m *node.Machine) (bool, error) {
	frozen, err := frozenVersion(m)
	if err != nil || frozen == "" {
		return err == nil, err
	}
	k, err := ReadBackup(m)
	// What was kept of this very version is there only while a move away from
	// it has not been undone.
	return err == nil && frozen == m.Baked.Release.Version && k.Version != frozen && !m.Host.Exists(partialDir), err
}

func moveVersion(_ context.Context, m *node.Machine) error {
	own := m.Baked.Release.Version
	k, err := ReadBackup(m)
	if err != nil {
		return err
	}
	if k.Version == own {
		m.Host.Log.Warn("going back to the backup of this version", slog.String("version", own), slog.String("from", k.To), slog.Time("made", k.Time))
		return restore(m, k)
	}
	if frozen, err := frozenVersion(m); err != nil || frozen == own {
		return errors.Join(err, m.Host.RemoveAll(partialDir)) // part of a copy, that a power cut has left
	}
	n, err := node.Frozen(m.Host)
	if err != nil {
		return err
	}
	old := n.Cluster.KubernetesVersion
	if err := m.Baked.Release.CheckUpgradeFrom(old); err != nil {
		return outcome.Refuse("cannot boot this image on this node: %w", err)
	}
	// A control plane that joined knows from its cluster where its etcd is.
	in, _, err := node.Load(m.Host)
	if err != nil {
		return err
	}
	moved := n.MoveTo(m.Baked)
	if _, err := config.Validate(moved, m.Baked); err != nil && !n.Role.Joins() {
		return outcome.Refuse("cannot boot this image on this node: its configuration does not go with Kubernetes %s: %w", own, err)
	}
	if k.Version != old || k.To != own { // else: kept before a power cut
		if err := makeBackup(m, in, old); err != nil {
			return err
		}
	}
	m.Host.Log.Info("this node moves to another version", slog.String("from", old), slog.String("to", own))
	if err := removeOutdated(m, in); err != nil {
		return err
	}
	return m.Freeze(moved)
}

// removeOutdated takes away what is made anew in another version, and makes what the
// node knows of its cluster, where it is known, fit it: a control plane goes on
// with it, for it must come up alone; a worker asks the cluster again.
func removeOutdated(m *node.Machine, n *config.Node) error {
	var files []string
	for _, pod := range []string{templates.Etcd, templates.APIServer, templates.ControllerManager, templates.Scheduler} {
		files = append(files, node.ManifestPath(pod))
	}
	if n.Role == config.RoleInit || n.Role == config.RoleControlPlane && n.KnowsCluster() {
		renewable, err := pki.Renewable(m.Host, n, m.Baked.Release)
		if err != nil {
			return err
		}
		files = append(files, renewable...)
	}
	if n.Role == config.RoleWorker {
		files = append(files, node.ClusterFile)
	}
	for _, f := range files {
		if err := m.Host.Remove(f); err != nil {
			return err
		}
	}
	if n.Role != config.RoleWorker {
		if err := kubelet.MoveServer(m, n, m.Baked.Release); err != nil {
			return err
		}
	}
	if n.Role == config.RoleControlPlane && n.KnowsCluster() {
		moved := n.MoveTo(m.Baked)
		return m.FreezeCluster(n, config.Cluster{Cluster: moved.Cluster, Kubelet: moved.Kubelet, KubeProxy: moved.KubeProxy})
	}
	return nil
}
