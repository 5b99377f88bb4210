package firstboot

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/templates"
)

// manifestDir is where the kubelet looks for static pods.
const manifestDir = "/etc/kubernetes/manifests"

// manifestPath is the file of the static pod named name.
func manifestPath(name string) string { return path.Join(manifestDir, name+".yaml") }

// podParams are what this node's static pods depend on.
func podParams(r *Run) templates.PodParams {
	dir := r.Node.Cluster.CertificatesDir
	return templates.PodParams{
		Node: r.Node, Release: r.Baked.Release, Exists: r.Host.Exists,
		ExternalCA: r.Host.Exists(path.Join(dir, pki.CA+".crt")) && !r.Host.Exists(path.Join(dir, pki.CA+".key")),
	}
}

// patches reads the user's patches directory; nil where there is none.
func patches(r *Run) (templates.Patches, error) {
	dir := r.Node.Init.Patches
	if dir == "" {
		return nil, nil
	}
	rel := strings.TrimPrefix(path.Clean(dir), "/")
	entries, err := fs.ReadDir(r.Host.Root.FS(), rel)
	if err != nil {
		return nil, fmt.Errorf("cannot read the patches directory %s: %w", dir, err)
	}
	p := templates.Patches{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if p[e.Name()], err = r.Host.ReadFile(path.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("cannot read the patch %s: %w", path.Join(dir, e.Name()), err)
		}
	}
	return p, p.Check()
}

// manifests are the manifests that this image wants for pods, by file.
func manifests(r *Run, pods ...*corev1.Pod) ([]manifest, error) {
	p, err := patches(r)
	if err != nil {
		return nil, err
	}
	var ms []manifest
	for _, pod := range pods {
		b, err := p.Manifest(pod)
		if err != nil {
			return nil, err
		}
		ms = append(ms, manifest{manifestPath(pod.Name), b})
	}
	return ms, nil
}

// manifest is a static pod's file.
type manifest struct {
	file string
	data []byte
}

// manifestsDone says whether each file holds what this image wants.
func manifestsDone(r *Run, ms []manifest) bool {
	for _, m := range ms {
		b, err := r.Host.ReadFile(m.file)
		if err != nil || string(b) != string(m.data) {
			return false
		}
	}
	return true
}

// writeManifests writes each file that differs.
func writeManifests(r *Run, ms []manifest) error {
	if err := r.Host.MkdirAll(manifestDir, 0o700); err != nil {
		return err
	}
	for _, m := range ms {
		if err := r.Host.WriteFile(m.file, m.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
