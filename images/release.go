// Package images knows what a Kubernetes version is made of.
//
// What differs between versions (image tags, config API versions, names that
// came and went) stands in tables of what holds from which version on, and
// Lookup, which makes a Release of them, is the only way to read them. No other package compares version numbers: it asks for a fact.
// A version that the table does not know is an error, never a guess.
package images

import (
	"fmt"
	"regexp"
	"strconv"
)

// Image is one image of a release, without its registry.
type Image struct {
	Repo string `json:"repo"` // below the registry, e.g. "coredns/coredns"
	Tag  string `json:"tag"`  // e.g. "v1.8.4"
}

// Ref is the image's full name in registry, e.g. "k8s.gcr.io/etcd:3.4.13-0".
func (i Image) Ref(registry string) string { return registry + "/" + i.Repo + ":" + i.Tag }

// Release holds the facts of one Kubernetes version. It is plain data: the
// builder bakes it into the image as part of Baked, and the node reads it
// from there, so both sides hold the same facts.
type Release struct {
	Version  string `json:"version"`  // "v1.19.12"
	Registry string `json:"registry"` // default image repository, as this version's kubeadm prints it
	// PullRegistry serves the images of Registry today; it differs where
	// Registry is frozen (k8s.gcr.io).
	PullRegistry string `json:"pullRegistry"`

	Etcd    Image `json:"etcd"`
	CoreDNS Image `json:"coredns"`
	Pause   Image `json:"pause"`

	// EtcdFor is this kubeadm's own table of etcd tags by the minor of the
	// cluster's version, from the lowest minor that it deploys: it is asked
	// where a config names another kubernetesVersion. Above the highest key
	// the highest key's tag holds.
	EtcdFor map[int]string `json:"etcdFor"`
	// KubeDNS is the tag of the three kube-dns images; empty where kubeadm
	// has no kube-dns any more.
	KubeDNS string `json:"kubeDNS,omitempty"`

	ConfigAPI        string   `json:"configAPI"`        // newest kubeadm config API it reads: "v1beta2"
	ConfigAPIs       []string `json:"configAPIs"`       // all of them, oldest first
	OutputAPI        string   `json:"outputAPI"`        // version of output.kubeadm.k8s.io in its JSON output: "v1alpha1"
	KubeletConfigMap string   `json:"kubeletConfigMap"` // "kubelet-config-1.19"
	Labels           []string `json:"labels"`           // of a control-plane node, value ""
	Taints           []string `json:"taints"`           // keys of a control-plane node's NoSchedule taints
	ExternalEtcd     string   `json:"externalEtcd"`     // oldest etcd that may be external, as an image's tag: "3.4.13-4"
	KubeletSkew      int      `json:"kubeletSkew"`      // minor versions that a kubelet may be older than the API server
	CRI              []string `json:"cri"`              // versions of the CRI that its kubelet speaks, oldest first: "v1alpha2", "v1"

	// KubeletClient is the group of the certificate by which the API server is
	// known to kubelets; empty where a binding gives its user the rights.
	KubeletClient string `json:"kubeletClient"`

	// Unseen says that this patch release came after the newest one which kbuild
	// had read: its images' tags are from its own module, its facts those of the
	// patch release before.
	Unseen bool `json:"unseen,omitempty"`

	// Flannel is the full name of the pod network's image that goes with this
	// version by default, e.g. "ghcr.io/flannel-io/flannel:v0.28.10".
	Flannel string `json:"flannel"`

	Facts map[string]bool `json:"facts,omitempty"` // see the Fact constants
}

// Minor is the minor number of the release: 19 for v1.19.12.
func (r Release) Minor() int {
	_, minor, _, _ := parse(r.Version)
	return minor
}

var shortVersion = regexp.MustCompile(`^v?(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$`)

// parse splits "v1.19.12" (the v may be missing).
func parse(v string) (major, minor, patch int, err error) {
	m := shortVersion.FindStringSubmatch(v)
	if m == nil {
		return 0, 0, 0, fmt.Errorf("cannot read version %q: want vMAJOR.MINOR.PATCH, as in v1.19.12", v)
	}
	n := make([]int, 3)
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // four digits at most
	}
	return n[0], n[1], n[2], nil
}
