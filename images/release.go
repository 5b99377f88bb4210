// Package images knows what a Kubernetes version is made of.
//
// What differs between versions (image tags, config API versions, names that
// came and went) is a table of Release values, and Lookup is the only way to
// read it. No other package compares version numbers: it asks for a fact.
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
	Taint            string   `json:"taint"`            // NoSchedule taint key of a control-plane node
	ClusterStatus    bool     `json:"clusterStatus"`    // kubeadm-config holds ClusterStatus
	SuperAdminConf   bool     `json:"superAdminConf"`   // super-admin.conf exists
	CRI              string   `json:"cri"`              // newest CRI its kubelet speaks: "v1alpha2" or "v1"

	// Flannel is the full name of the pod network's image that goes with this
	// version by default, e.g. "ghcr.io/flannel-io/flannel:v0.28.10".
	Flannel string `json:"flannel"`

	Facts map[string]bool `json:"facts,omitempty"` // see the Fact constants
}

// Fact names a yes-or-no difference between versions.
type Fact string

// Facts. A missing fact is false.
const (
	// FactInsecurePort: kubeadm sets --insecure-port=0 for kube-apiserver, and
	// --port=0 for kube-controller-manager and kube-scheduler.
	FactInsecurePort Fact = "insecure-port"
	// FactServiceAccountIssuer: kubeadm sets --service-account-issuer and
	// --service-account-signing-key-file for kube-apiserver.
	FactServiceAccountIssuer Fact = "service-account-issuer"
	// FactNodeCIDRMask: kubeadm sets --node-cidr-mask-size (or its -ipv4 and
	// -ipv6 forms) for kube-controller-manager where there is a pod subnet.
	FactNodeCIDRMask Fact = "node-cidr-mask"
	// FactEtcdRequests: kubeadm's etcd static pod requests 100m of CPU and
	// 100Mi of memory.
	FactEtcdRequests Fact = "etcd-requests"
	// FactRemoteRuntimeFlag: the kubelet needs --container-runtime=remote for any
	// runtime but Docker.
	FactRemoteRuntimeFlag Fact = "remote-runtime-flag"
	// FactDockerProbe: the kubelet looks for Docker for five seconds whenever it
	// starts, whatever its runtime is.
	FactDockerProbe Fact = "docker-probe"
	// FactSlowReady: the kubelet reports that it has become ready only when it
	// starts, and every ten seconds.
	FactSlowReady Fact = "slow-ready"
	// FactInstanceConfig: kubeadm tells the kubelet its container runtime's
	// socket in instance-config.yaml, which overrides config.yaml, and not by a flag.
	FactInstanceConfig Fact = "instance-config"
	// FactProbePort: the static pods name their probe port "probe-port".
	FactProbePort Fact = "probe-port"
	// FactHyperKube: the config field useHyperKubeImage works.
	FactHyperKube Fact = "hyperkube"
	// FactDNSFirst: kubeadm lists the DNS image before pause and etcd, not
	// after them.
	FactDNSFirst Fact = "dns-first"
	// FactMemCheck: kubeadm's preflight wants 1700 MB of memory for a control
	// plane.
	FactMemCheck Fact = "mem-check"
)

// Has says whether a yes-or-no fact holds for the release.
func (r Release) Has(f Fact) bool { return r.Facts[string(f)] }

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
