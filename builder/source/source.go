// Package source provides the components of a node image: compiled from Go modules,
// downloaded as official releases, or taken from a directory that the user has
// filled.
//
// What always holds: Resolve is a pure function of its input (and of that
// directory's content), and Fetch gives exactly what Resolve named. What was fetched
// is kept in a store of entries, each named by what it was made from; an entry is
// complete or missing, and one whose bytes have changed is made again. Everything
// that is compiled or assembled is a function of committed pins, our own sources,
// the Go toolchain, the epoch and the Debian tree, to the byte. All sources give the
// same: programs for the host, and an OCI layout with every image.
package source

import (
	"context"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// Want is what a node image needs of a source. It is decided before anything
// is fetched.
type Want struct {
	Release images.Release `json:"release"`
	Arch    string         `json:"arch"`             // GOARCH
	CNI     string         `json:"cni"`              // "flannel" or "none"
	Images  []string       `json:"images,omitempty"` // further image names, pulled from their registries
	// Config is what the user says of the control plane's images: repositories
	// and tags.
	Config images.ListConfig `json:"config,omitzero"`
}

// Component is one thing that goes into the image, as the Plan shows it.
type Component struct {
	Name    string `json:"name"`             // "kubelet", "etcd", "k8s.gcr.io/pause:3.2"
	Version string `json:"version"`          // "v1.19.12"
	Source  string `json:"source"`           // "module k8s.io/kubernetes", "https://dl.k8s.io/…", "registry registry.k8s.io/…", "file …"
	Digest  string `json:"digest,omitempty"` // module sum "h1:…", or "sha256:…"; empty where only fetching can tell
	Image   string `json:"image,omitempty"`  // name of the container image that it ends up in
	// Toolchain compiled it, e.g. "go1.26.8"; empty where it came compiled.
	Toolchain string `json:"toolchain,omitempty"`
}

// Output is what fetching made. Paths are in the cache: read them, never
// write.
type Output struct {
	// Binaries for the host by name: kubelet, kubectl, and the CNI plugins as
	// "cni/bridge" and so on. Several names may be the same multi-call file.
	Binaries map[string]string
	// Images is an OCI image layout with layer blobs; its index names each
	// image in images.RefAnnotation.
	Images string
}

// Source is a place that components come from.
type Source interface {
	// Resolve names every component without fetching contents.
	Resolve(ctx context.Context, w Want) ([]Component, error)
	// Fetch makes every component, verifies it, and keeps it in the cache.
	// It may be stopped at any time, and resumes where it stopped. osTree is
	// the directory of the node's Debian tree: images that need iptables,
	// conntrack, ipset, kmod, ip or CA certificates get copies of its own.
	Fetch(ctx context.Context, w Want, osTree string, log progress.Log) (Output, error)
}
