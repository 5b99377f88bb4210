package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseLayer is below every image but pause's: names of users, a place for
// temporary files, and the CA certificates of the tree, if it has any.
func baseLayer(tree string) (layer, error) {
	l := layer{name: "base", files: []file{
		{Path: "etc/passwd", Mode: 0o644, Data: "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"},
		{Path: "etc/group", Mode: 0o644, Data: "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n"},
		{Path: "etc/nsswitch.conf", Mode: 0o644, Data: "hosts: files dns\n"},
		{Path: "tmp", Mode: 0o1777},
	}}
	const certs = "etc/ssl/certs/ca-certificates.crt"
	real, err := resolve(tree, certs)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("cannot take the CA certificates of %s: %w", tree, err)
	}
	l.files = append(l.files, file{Path: certs, Mode: 0o644, From: filepath.Join(tree, real)})
	return l, nil
}

// program is a compiled program at a place in an image.
func program(at, dir, name string) file {
	return file{Path: at, Mode: 0o755, From: filepath.Join(dir, name), ID: filepath.Base(dir) + "/" + name}
}

// recipes are the images of a release, from a Debian tree and the directories
// that its builds were compiled into (by the first part of their names).
func (m *modules) recipes(w Want, tree string, bin map[string]string) ([]image, error) {
	base, err := baseLayer(tree)
	if err != nil {
		return nil, err
	}
	tools, err := toolLayer(tree)
	if err != nil {
		return nil, err
	}
	// One layer for all of Kubernetes, and one file in it under four names.
	kube := layer{name: "Kubernetes " + w.Release.Version}
	names := []string{"kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"}
	for i, name := range names {
		f := program("usr/local/bin/"+name, bin["kubernetes"], "kube")
		if i > 0 {
			f = file{Path: f.Path, Mode: f.Mode, Hard: "usr/local/bin/" + names[0]}
		}
		kube.files = append(kube.files, f)
	}
	r, list := w.Release, w.Config
	var all []image
	for _, name := range names {
		img := image{ref: r.KubernetesImage(name, list), layers: []layer{base, kube},
			config: v1.Config{Env: []string{searchPath}, Entrypoint: []string{"/usr/local/bin/" + name}}}
		if name == "kube-proxy" {
			img.layers = []layer{base, tools, kube}
		}
		all = append(all, img)
	}
	if !list.EtcdExternal {
		all = append(all, image{ref: r.EtcdImage(list),
			layers: []layer{base, {"etcd", []file{program("usr/local/bin/etcd", bin["etcd"], "etcd"), program("usr/local/bin/etcdctl", bin["etcd"], "etcdctl")}}},
			config: v1.Config{Env: []string{searchPath}, Cmd: []string{"etcd"}, ExposedPorts: ports("2379/tcp", "2380/tcp")}})
	}
	for _, ref := range r.DNSImages(list) {
		all = append(all, image{ref: ref,
			layers: []layer{base, {"CoreDNS", []file{program("coredns", bin["coredns"], "coredns")}}},
			config: v1.Config{Env: []string{searchPath}, Entrypoint: []string{"/coredns"}, ExposedPorts: ports("53/tcp", "53/udp")}})
	}
	all = append(all, image{ref: r.PauseImage(list),
		layers: []layer{{"pause", []file{program("pause", bin["pause"], "pause")}}},
		config: v1.Config{Env: []string{searchPath}, Entrypoint: []string{"/pause"}, User: "65535:65535"}})
	if w.CNI == "flannel" {
		all = append(all, image{ref: r.Flannel,
			layers: []layer{base, tools, {"flannel", []file{program("opt/bin/flanneld", bin["flannel"], "flanneld")}}},
			config: v1.Config{Env: []string{searchPath}, Entrypoint: []string{"/opt/bin/flanneld"}}})
	}
	return all, nil
}

func ports(names ...string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}
