package source

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

const (
	releaseURL = "https://dl.k8s.io/release"
	pluginsURL = "https://github.com/containernetworking/plugins/releases/download"
	runtimeURL = "https://github.com/containerd/containerd/releases/download"

	pluginsVersion       = "v1.9.1"
	flannelPluginVersion = "v0.9.1" // the last with the plugin "flannel"
)

// plugins are the CNI plugins that every node gets.
func plugins() []string {
	return []string{"bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "ptp", "static", "tuning"}
}

// officials takes what the projects themselves have compiled: the node's
// programs from their release pages, with their checksum files, and images
// from the registries.
type officials struct {
	config Config
	store  store
	get    downloader
}

func newOfficials(c Config) *officials {
	if c.BaseURL == "" {
		c.BaseURL = releaseURL
	}
	if c.PluginsURL == "" {
		c.PluginsURL = pluginsURL
	}
	if c.RuntimeURL == "" {
		c.RuntimeURL = runtimeURL
	}
	for _, url := range []*string{&c.BaseURL, &c.PluginsURL, &c.RuntimeURL} {
		*url = strings.TrimRight(*url, "/")
	}
	return &officials{config: c, store: c.store(), get: newDownloader()}
}

func (o *officials) program(w Want, name string) string {
	return fmt.Sprintf("%s/%s/bin/linux/%s/%s", o.config.BaseURL, w.Release.Version, w.Arch, name)
}

func (o *officials) tarball(w Want, version string) string {
	return fmt.Sprintf("%s/%s/cni-plugins-linux-%s-%s.tgz", o.config.PluginsURL, version, w.Arch, version)
}

// archive is a tarball, and the programs to take of it.
type archive struct {
	url, version string
	dir          string // in the tarball, that holds them
	prefix       string // of their names as components
	names        []string
}

func (o *officials) archives(w Want) []archive {
	a := []archive{{o.tarball(w, pluginsVersion), pluginsVersion, "", "cni/", plugins()}}
	if w.CNI == "flannel" {
		a = append(a, archive{o.tarball(w, flannelPluginVersion), flannelPluginVersion, "", "cni/", []string{"flannel"}})
	}
	if names := RuntimePrograms(w.Release); len(names) > 0 {
		url := fmt.Sprintf("%s/%s/containerd-static-%s-linux-%s.tar.gz", o.config.RuntimeURL, containerdVersion, containerdVersion[1:], w.Arch)
		a = append(a, archive{url, containerdVersion, "bin", "", names})
	}
	return a
}

// wanted are the full names of all images of w, sorted.
func wanted(w Want) ([]string, error) {
	refs, err := images.List(w.Release, w.Config)
	if err != nil {
		return nil, err
	}
	switch w.CNI {
	case "none":
	case "flannel":
		refs = append(refs, w.Release.Flannel)
	default:
		return nil, fmt.Errorf("cannot build the pod network %q: want flannel or none", w.CNI)
	}
	return FullNames(append(refs, w.Images...))
}

// beyond are the images of w that are not the release's own.
func beyond(w Want) ([]string, error) {
	more, err := FullNames(w.Images)
	if err != nil {
		return nil, err
	}
	w.Images = nil
	own, err := wanted(w)
	return slices.DeleteFunc(more, func(ref string) bool { return slices.Contains(own, ref) }), err
}

// Resolve names what will be downloaded. Digests stay empty: only the
// checksum files tell them.
func (o *officials) Resolve(_ context.Context, w Want) ([]Component, error) {
	refs, err := wanted(w)
	if err != nil {
		return nil, err
	}
	var cs []Component
	for _, name := range []string{"kubelet", "kubectl"} {
		cs = append(cs, Component{Name: name, Version: w.Release.Version, Source: o.program(w, name)})
	}
	for _, a := range o.archives(w) {
		for _, name := range a.names {
			cs = append(cs, Component{Name: a.prefix + name, Version: a.version, Source: a.url})
		}
	}
	return append(cs, pulled(refs)...), nil
}

// Fetch downloads what is not in the cache.
func (o *officials) Fetch(ctx context.Context, w Want, _ string, log progress.Log) (Output, error) {
	refs, err := wanted(w)
	if err != nil {
		return Output{}, err
	}
	out := Output{Binaries: map[string]string{}}
	for _, name := range []string{"kubelet", "kubectl"} {
		url := o.program(w, name)
		dir, err := o.fetch(ctx, url, log, func(file, dir string) error {
			return errors.Join(os.Chmod(file, 0o755), os.Rename(file, filepath.Join(dir, name)))
		})
		if isStatus(err, 404) {
			return Output{}, fmt.Errorf("%w: is there a release %s for linux/%s?", err, w.Release.Version, w.Arch)
		}
		if err != nil {
			return Output{}, err
		}
		out.Binaries[name] = filepath.Join(dir, name)
	}
	for _, a := range o.archives(w) {
		dir, err := o.fetch(ctx, a.url, log, a.unpack)
		if err != nil {
			return Output{}, err
		}
		for _, name := range a.names {
			out.Binaries[a.prefix+name] = filepath.Join(dir, name)
		}
	}
	imgs, err := o.config.pull(ctx, o.store, refs, w.Arch, log)
	if err != nil {
		return Output{}, err
	}
	out.Images, err = o.store.assemble(ctx, nil, imgs, w.Arch, o.config.Epoch, log)
	return out, err
}

// fetch downloads url, checks it against its checksum file, and lets keep put
// what is wanted of it into an entry of the store.
func (o *officials) fetch(ctx context.Context, url string, log progress.Log, keep func(file, dir string) error) (string, error) {
	return o.store.entry(ctx, "download", key(url), log, func(ctx context.Context, dir string) (err error) {
		task := log.Task("downloading " + url)
		defer func() { task.End(err) }()
		part := filepath.Join(o.store.dir, "partial", key(url))
		get := o.get
		get.far = func(have int64) { task.Far("%d MiB", have>>20) }
		want, err := get.checksumOf(ctx, url)
		if err != nil {
			return fmt.Errorf("cannot learn the checksum of %s: %w", url, err)
		}
		whole := filepath.Join(dir, ".whole")
		if err := get.file(ctx, url, part, whole, want); err != nil {
			return err
		}
		if err := keep(whole, dir); err != nil {
			return fmt.Errorf("cannot keep %s: %w", url, err)
		}
		return os.RemoveAll(whole)
	})
}

// unpack takes the programs out of the tarball, which is file.
func (a archive) unpack(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	missing := slices.Clone(a.names)
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		in, name := path.Split(path.Clean(h.Name))
		i := slices.Index(missing, name)
		if path.Clean(in) != path.Clean(a.dir) {
			i = -1
		}
		if i < 0 || h.Typeflag != tar.TypeReg {
			continue
		}
		out, err := os.OpenFile(filepath.Join(dir, missing[i]), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, tr)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
		missing = slices.Delete(missing, i, i+1)
	}
	if len(missing) > 0 {
		return fmt.Errorf("it lacks %s", strings.Join(missing, ", "))
	}
	return nil
}
