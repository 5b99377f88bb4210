package firstboot

import (
	"context"
	"log/slog"
	"path"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/templates"
)

// podParams are what this node's static pods depend on.
func podParams(m *node.Machine) templates.PodParams {
	dir := m.Node.Cluster.CertificatesDir
	return templates.PodParams{
		Node: m.Node, Release: m.Baked.Release, Exists: m.Host.Exists, Env: m.Host.Env, Startup: startupLimit(m),
		ExternalCA: m.Host.Exists(path.Join(dir, pki.CA+".crt")) && !m.Host.Exists(path.Join(dir, pki.CA+".key")),
	}
}

// defaultTimeout is kubeadm's timeoutForControlPlane, and emulatedTimeout what an
// emulated machine gets in its place: with one busy core beside it, its API
// server was not up after four minutes, and the kubelet ended it again and
// again for half an hour.
const (
	defaultTimeout  = 4 * time.Minute
	emulatedTimeout = 20 * time.Minute
)

// startupLimit is how long the control plane of this machine may take to start,
// or to get on with it.
func startupLimit(m *node.Machine) time.Duration {
	limit, _ := m.Node.ControlPlaneTimeout()
	if limit == defaultTimeout && m.Host.Emulated() {
		return emulatedTimeout
	}
	return limit
}

// patches are those of the user's patches directory; nil where there is none.
func patches(m *node.Machine) (templates.Patches, error) {
	dir := m.Node.Init.Patches
	if dir == "" {
		return nil, nil
	}
	p, err := templates.ReadPatches(m.Host.Root.FS(), dir)
	if err != nil {
		return nil, err
	}
	ignored, err := p.Check(m.Baked.Release)
	for _, why := range ignored {
		m.Host.Log.Warn("a file in the patches directory is ignored", slog.String("directory", dir), slog.String("why", why))
	}
	return p, err
}

// manifests are the manifests that this image wants for pods, by file.
func manifests(m *node.Machine, pods ...*corev1.Pod) ([]manifest, error) {
	p, err := patches(m)
	if err != nil {
		return nil, err
	}
	var ms []manifest
	for _, pod := range pods {
		b, err := p.Manifest(pod)
		if err != nil {
			return nil, err
		}
		ms = append(ms, manifest{node.ManifestPath(pod.Name), b})
	}
	return ms, nil
}

// manifest is a static pod's file.
type manifest struct {
	file string
	data []byte
}

// manifestsDone says whether each file holds what this image wants.
func manifestsDone(m *node.Machine, ms []manifest) bool {
	for _, file := range ms {
		b, err := m.Host.ReadFile(file.file)
		if err != nil || string(b) != string(file.data) {
			return false
		}
	}
	return true
}

// writeManifests writes each file that differs.
func writeManifests(m *node.Machine, ms []manifest) error {
	if err := m.Host.MkdirAll(node.ManifestDir, 0o700); err != nil {
		return err
	}
	for _, file := range ms {
		if file.file == node.ManifestPath(templates.Etcd) {
			// The kubelet would make it readable for everybody.
			if err := m.Host.MkdirAll(m.Node.Cluster.Etcd.Local.DataDir, 0o700); err != nil {
				return err
			}
		}
		if err := m.Host.WriteFile(file.file, file.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// manifestStep is a step that writes the manifests which want returns.
func manifestStep(name string, want func(m *node.Machine) ([]manifest, error)) converge.Step {
	return converge.Step{
		Name: name,
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			ms, err := want(m)
			return err == nil && manifestsDone(m, ms), err
		},
		Do: func(_ context.Context, m *node.Machine) error {
			ms, err := want(m)
			if err != nil {
				return err
			}
			return writeManifests(m, ms)
		},
	}
}
