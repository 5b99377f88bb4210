package source

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// What is compiled beside Kubernetes. Image tags come from images.Release;
// which module a tag stands for is said here, by a rule for each family of
// tags. A tag outside of them is an error, never a guess.

// family are the tags of an image that follow one rule: prefix, a number, and
// suffix. The module's version is the tag without suffix.
type family struct {
	prefix, suffix string
	replace        []string // replacements that the family's modules need
}

// version is the version that a tag stands for ("3.5.24"), if one of the
// families has it.
func version(families []family, tag string) (v string, f family, ok bool) {
	for _, f := range families {
		patch, head := strings.CutPrefix(tag, f.prefix)
		patch, tail := strings.CutSuffix(patch, f.suffix)
		if n, err := strconv.Atoi(patch); head && tail && err == nil && strconv.Itoa(n) == patch && n >= 0 {
			return strings.TrimPrefix(f.prefix, "v") + patch, f, true
		}
	}
	return "", family{}, false
}

func etcdFamilies() []family {
	return []family{
		{"3.5.", "-0", reflectFixes()},
		{"3.6.", "-0", nil},
		{"3.7.", "-0", nil},
	}
}

// etcdBuild is the build module of etcd and etcdctl. Upstream's images hold
// the same two; etcdutl is in none of them.
func etcdBuild(i images.Image) (build, error) {
	if i.Tag == "3.4.13-0" {
		// The commit that the tag v3.4.13 names. Its go.mod says
		// go.etcd.io/etcd without /v3, so the tag itself is not a valid version.
		const commit = "ae9734ed278b"
		return build{
			Name: "etcd-3.4.13", Module: "go.etcd.io/etcd", Version: "v0.5.0-alpha.5.0.20200824191128-" + commit,
			Programs: map[string]string{"etcd": "go.etcd.io/etcd", "etcdctl": "go.etcd.io/etcd/etcdctl"},
			Set:      map[string]string{"go.etcd.io/etcd/version.GitSHA": commit[:9]},
			Replace:  reflectFixes(),
		}, nil
	}
	v, f, ok := version(etcdFamilies(), i.Tag)
	if !ok {
		return build{}, unknownTag("etcd", i)
	}
	return build{
		Name: "etcd-" + v, Module: "go.etcd.io/etcd/server/v3", Version: "v" + v,
		Require:  []string{"go.etcd.io/etcd/etcdctl/v3 v" + etcdctlFor(v)},
		Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3"},
		Replace:  f.replace,
	}, nil
}

// etcdctlFor is the version of etcdctl's module for an etcd: its own, or the
// last one before it where not every proxy serves that. Between the two, the
// module's go.mod and go.sum differ, and no other file. What etcdctl reports is
// the version of etcd's libraries, which is etcd's.
func etcdctlFor(etcd string) string {
	if etcd == "3.5.24" {
		return "3.5.21"
	}
	return etcd
}

// CoreDNS had tags without "v" up to 1.7.
func corednsFamilies() []family {
	return []family{
		{"1.7.", "", reflectFixes()},
		{"v1.8.", "", reflectFixes()},
		{"v1.9.", "", nil},
		{"v1.10.", "", nil},
		{"v1.11.", "", nil},
		{"v1.12.", "", nil},
		{"v1.13.", "", nil},
		{"v1.14.", "", nil},
	}
}

// corednsBuild is the build module of CoreDNS.
func corednsBuild(i images.Image) (build, error) {
	v, f, ok := version(corednsFamilies(), i.Tag)
	if !ok {
		return build{}, unknownTag("CoreDNS", i)
	}
	return build{
		Name: "coredns-" + v, Module: "github.com/coredns/coredns", Version: "v" + v,
		Programs: map[string]string{"coredns": "github.com/coredns/coredns"},
		Replace:  f.replace,
	}, nil
}

// flannelBuild is the build module of flanneld, of the image named ref.
func flannelBuild(ref string) (build, error) {
	const known = "ghcr.io/flannel-io/flannel:v0.28.10"
	if ref != known {
		return build{}, fmt.Errorf("cannot compile flannel for the image %s: only %s is supported", ref, known)
	}
	// The backend for Tencent's cloud wants a module that is not served, and
	// the udp backend wants cgo: both are left out. Backends vxlan, host-gw,
	// wireguard, ipip, ipsec, alloc and extension remain.
	const sdk = "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/"
	return build{
		Name: "flannel-0.28.10", Module: "github.com/flannel-io/flannel", Version: "v0.28.10",
		Programs: map[string]string{"flanneld": "github.com/flannel-io/flannel"},
		Set:      map[string]string{"github.com/flannel-io/flannel/pkg/version.Version": "v0.28.10"},
		Replace:  []string{sdk + "vpc => ./vpc"},
		Files:    map[string]string{"vpc/go.mod": "module " + sdk + "vpc\n"},
		Overlay: map[string]string{
			"pkg/backend/tencentvpc/tencentvpc.go": "// Package tencentvpc is left out.\npackage tencentvpc\n",
			"pkg/backend/udp/cproxy_amd64.go":      "",
			"pkg/backend/udp/proxy_amd64.c":        "",
			"pkg/backend/udp/proxy_amd64.h":        "",
			"pkg/backend/udp/udp_amd64.go":         "",
			"pkg/backend/udp/udp_network_amd64.go": "",
			"pkg/backend/udp/udp.go":               "// Package udp is left out.\npackage udp\n",
			"pkg/backend/udp/udp_network.go":       "",
		},
	}, nil
}

// pluginsBuild is the build module of the CNI plugins that every node gets.
func pluginsBuild() build {
	const module = "github.com/containernetworking/plugins"
	b := build{
		Name: "cni-" + pluginsVersion[1:], Module: module, Version: pluginsVersion, Programs: map[string]string{},
		Set: map[string]string{module + "/pkg/utils/buildversion.BuildVersion": pluginsVersion},
	}
	for _, p := range plugins() {
		kind := "main"
		switch p {
		case "host-local", "static":
			kind = "ipam"
		case "bandwidth", "firewall", "portmap", "tuning":
			kind = "meta"
		}
		b.Programs[p] = module + "/plugins/" + kind + "/" + p
	}
	return b
}

// flannelPluginBuild is the build module of the CNI plugin "flannel". Its
// present module, github.com/flannel-io/cni-plugin, is not served by every proxy;
// until v0.9.1 it was one of containernetworking's plugins. It reads
// /run/flannel/subnet.env, calls bridge and host-local, and supports
// configurations of CNI 0.3.1 and 0.4.0.
func flannelPluginBuild() build {
	const module = "github.com/containernetworking/plugins"
	return build{
		Name: "cniflannel-" + flannelPluginVersion[1:], Module: module, Version: flannelPluginVersion,
		Programs: map[string]string{"flannel": module + "/plugins/meta/flannel"},
		Set:      map[string]string{module + "/pkg/utils/buildversion.BuildVersion": flannelPluginVersion},
	}
}

// pauseBuild is kbuild's own pause, under the version of the image's tag.
func pauseBuild(i images.Image) (build, error) {
	text, err := mains.ReadFile("pause/main.go")
	return build{
		Name:     "pause-" + i.Tag,
		Programs: map[string]string{"pause": "."},
		Files:    map[string]string{"main.go": string(text)},
		Set:      map[string]string{"main.version": i.Tag},
	}, err
}

func unknownTag(what string, i images.Image) error {
	return fmt.Errorf("cannot compile %s for the image %s:%s: no module is known for that tag: use --source release or dir:PATH", what, i.Repo, i.Tag)
}
