package source

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// modules compiles every component from its Go module.
type modules struct {
	config Config
	store  store
}

// builds are the build modules of everything that w wants, Kubernetes first.
func builds(w Want, epoch time.Time) ([]build, error) {
	kube, err := kubeBuild(w.Release, epoch)
	if err != nil {
		return nil, err
	}
	etcd, err := etcdBuild(w.Release.Etcd)
	if err != nil {
		return nil, err
	}
	dns, err := corednsBuild(w.Release.CoreDNS)
	if err != nil {
		return nil, err
	}
	pause, err := pauseBuild(w.Release.Pause)
	if err != nil {
		return nil, err
	}
	all := []build{kube, etcd, dns, pause, pluginsBuild()}
	if len(RuntimePrograms(w.Release)) > 0 {
		all = append(all, containerdBuilds()...)
	}
	switch w.CNI {
	case "none":
	case "flannel":
		flannel, err := flannelBuild(w.Release.Flannel)
		if err != nil {
			return nil, err
		}
		all = append(all, flannel, flannelPluginBuild())
	default:
		return nil, fmt.Errorf("cannot build the pod network %q: want flannel or none", w.CNI)
	}
	return all, nil
}

// Resolve names every component with the module sums of the locks.
func (m *modules) Resolve(_ context.Context, w Want) ([]Component, error) {
	all, err := builds(w, m.config.Epoch)
	if err != nil {
		return nil, err
	}
	by := map[string]build{}
	for _, b := range all {
		by[b.kind()] = b
	}
	part := func(name, kind, image string) Component {
		b := by[kind]
		c := Component{Name: name, Version: b.Version, Source: "module " + b.Module, Digest: b.sum(), Image: image, Toolchain: toolchain()}
		if b.Module == "" {
			c.Version, c.Source, c.Digest = strings.TrimPrefix(b.Name, kind+"-"), "kbuild", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b.Files["main.go"])))
		}
		return c
	}
	if err := compilable(w); err != nil {
		return nil, err
	}
	r, list := w.Release, w.Config
	cs := []Component{part("kubelet", "kubernetes", ""), part("kubectl", "kubernetes", "")}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		cs = append(cs, part(name, "kubernetes", r.KubernetesImage(name, list)))
	}
	for _, b := range all {
		if strings.HasPrefix(b.kind(), "containerd") {
			for _, name := range slices.Sorted(maps.Keys(b.Programs)) {
				cs = append(cs, part(name, b.kind(), ""))
			}
		}
	}
	if !list.EtcdExternal {
		cs = append(cs, part("etcd", "etcd", r.EtcdImage(list)), part("etcdctl", "etcd", r.EtcdImage(list)))
	}
	for _, ref := range r.DNSImages(list) {
		cs = append(cs, part("coredns", "coredns", ref))
	}
	cs = append(cs, part("pause", "pause", r.PauseImage(list)))
	for _, name := range slices.Sorted(maps.Keys(by["cni"].Programs)) {
		cs = append(cs, part("cni/"+name, "cni", ""))
	}
	if w.CNI == "flannel" {
		cs = append(cs, part("cni/flannel", "cniflannel", ""), part("flanneld", "flannel", r.Flannel))
	}
	more, err := beyond(w)
	return append(cs, pulled(more)...), err
}

// compilable refuses tags that name another program than the one that is
// compiled: an image must hold what its name says.
func compilable(w Want) error {
	const remedy = "remove the field, or build with --source release or dir:PATH"
	for _, t := range []struct{ field, want, have string }{
		{"etcd.local.imageTag", w.Config.EtcdTag, w.Release.Etcd.Tag}, {"dns.imageTag", w.Config.DNSTag, w.Release.CoreDNS.Tag},
	} {
		if t.want != "" && t.want != t.have {
			return fmt.Errorf("cannot compile an image with tag %s (%s): --source modules makes %s for Kubernetes %s; %s", t.want, t.field, t.have, w.Release.Version, remedy)
		}
	}
	if w.Config.DNSType == images.KubeDNS {
		return fmt.Errorf("cannot compile kube-dns (dns.type): --source modules makes CoreDNS; %s", remedy)
	}
	return nil
}

// Fetch compiles what is not in the cache, and assembles the images.
func (m *modules) Fetch(ctx context.Context, w Want, osTree string, log progress.Log) (Output, error) {
	all, err := builds(w, m.config.Epoch)
	if err != nil {
		return Output{}, err
	}
	bin := map[string]string{}
	for _, b := range all {
		if bin[b.kind()], err = (compiler{m.store, w.Arch}).compile(ctx, b, log); err != nil {
			return Output{}, err
		}
	}
	out := Output{Binaries: map[string]string{}}
	for _, name := range []string{"kubelet", "kubectl"} {
		out.Binaries[name] = filepath.Join(bin["kubernetes"], "kube")
	}
	for _, b := range all {
		for name := range b.Programs {
			switch at := filepath.Join(bin[b.kind()], name); {
			case strings.HasPrefix(b.kind(), "cni"):
				out.Binaries["cni/"+name] = at
			case strings.HasPrefix(b.kind(), "containerd"):
				out.Binaries[name] = at
			}
		}
	}
	imgs, err := m.recipes(w, osTree, bin)
	if err != nil {
		return Output{}, err
	}
	refs, err := beyond(w)
	if err != nil {
		return Output{}, err
	}
	more, err := m.config.pull(ctx, m.store, refs, w.Arch, log)
	if err != nil {
		return Output{}, err
	}
	out.Images, err = m.store.assemble(ctx, imgs, more, w.Arch, m.config.Epoch, log)
	return out, err
}

// Kubeadm compiles upstream's kubeadm of a version for this machine, which tests
// compare kbuild with. It returns the program's path in the cache.
func Kubeadm(ctx context.Context, c Config, version string, log progress.Log) (string, error) {
	c, err := c.withCache()
	if err != nil {
		return "", err
	}
	r, err := Lookup(ctx, version)
	if err != nil {
		return "", err
	}
	b, err := kubeBuild(r, time.Unix(0, 0)) // nothing of it goes into an image
	if err != nil {
		return "", err
	}
	b.Programs = map[string]string{"kubeadm": "./kubeadm"}
	dir, err := compiler{c.store(), hostArch}.compile(ctx, b, log)
	return filepath.Join(dir, "kubeadm"), err
}
