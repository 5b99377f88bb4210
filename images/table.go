package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// row is what is true of one minor release. What changes from patch to patch is a
// function of the patch number.
type row struct {
	minor    int
	newest   int // newest patch that was read; a later one may hold other facts
	registry string
	etcd     func(patch int) map[int]string // see Release.EtcdFor
	coredns  Image
	kubeDNS  string
	pause    string
	apis     []string // config APIs, oldest first
	output   string   // version of output.kubeadm.k8s.io
	rest     func(*Release)
}

func always(m map[int]string) func(int) map[int]string {
	return func(int) map[int]string { return m }
}

const (
	oldRegistry = "k8s.gcr.io"      // frozen on 3 April 2023
	newRegistry = "registry.k8s.io" // serves everything the old one did

	master       = "node-role.kubernetes.io/master"
	controlPlane = "node-role.kubernetes.io/control-plane"
	noExternalLB = "node.kubernetes.io/exclude-from-external-load-balancers"
)

// table is read from each version's own kubeadm: cmd/kubeadm/app/constants
// (etcd, CoreDNS, pause, names), app/images (order, paths), app/apis (config
// and output versions), app/phases (labels, static pods). The oracle checks it
// against `kubeadm config images list`. To add a minor, add a row.
func table() []row {
	return []row{
		{minor: 19, newest: 16, registry: oldRegistry,
			etcd: func(patch int) map[int]string {
				if patch == 0 {
					return map[int]string{18: "3.4.3-0", 19: "3.4.9-1", 20: "3.4.9-1"}
				}
				return map[int]string{18: "3.4.3-0", 19: "3.4.13-0", 20: "3.4.13-0"}
			},
			coredns: Image{"coredns", "1.7.0"}, kubeDNS: "1.14.13", pause: "3.2",
			apis: []string{"v1beta1", "v1beta2"}, output: "v1alpha1",
			rest: func(r *Release) {
				r.KubeletConfigMap = "kubelet-config-1.19"
				r.Labels = []string{master}
				r.Taint = master
				r.ClusterStatus = true
				r.CRI = "v1alpha2"
				r.Facts = facts(FactInsecurePort, FactNodeCIDRMask, FactHyperKube, FactRemoteRuntimeFlag, FactDockerProbe, FactSlowReady)
			}},
		{minor: 20, newest: 15, registry: oldRegistry,
			etcd: func(patch int) map[int]string {
				if patch == 0 {
					return map[int]string{19: "3.4.9-1", 20: "3.4.13-0", 21: "3.4.13-0"}
				}
				return map[int]string{19: "3.4.13-0", 20: "3.4.13-0", 21: "3.4.13-0"}
			},
			coredns: Image{"coredns", "1.7.0"}, kubeDNS: "1.14.13", pause: "3.2",
			apis: []string{"v1beta1", "v1beta2"}, output: "v1alpha1",
			rest: func(r *Release) {
				r.KubeletConfigMap = "kubelet-config-1.20"
				r.Labels = []string{master, controlPlane}
				r.Taint = master
				r.ClusterStatus = true
				r.CRI = "v1alpha2"
				r.Facts = facts(FactInsecurePort, FactServiceAccountIssuer, FactEtcdRequests, FactHyperKube, FactMemCheck, FactRemoteRuntimeFlag, FactDockerProbe, FactSlowReady)
			}},
		{minor: 37, newest: 2, registry: newRegistry,
			etcd:    always(map[int]string{36: "3.7.0-0"}),
			coredns: Image{"coredns/coredns", "v1.14.6"}, pause: "3.10.2",
			apis: []string{"v1beta4"}, output: "v1alpha3",
			rest: func(r *Release) {
				r.KubeletConfigMap = "kubelet-config"
				r.Labels = []string{controlPlane, noExternalLB}
				r.Taint = controlPlane
				r.SuperAdminConf = true
				r.CRI = "v1"
				r.Facts = facts(FactServiceAccountIssuer, FactEtcdRequests, FactProbePort, FactDNSFirst, FactMemCheck, FactInstanceConfig)
			}},
	}
}

func facts(fs ...Fact) map[string]bool {
	m := map[string]bool{}
	for _, f := range fs {
		m[string(f)] = true
	}
	return m
}

// Lookup returns the facts of version, e.g. "v1.19.12". A minor without a row
// and a patch newer than the newest that was read are errors.
func Lookup(version string) (Release, error) {
	major, minor, patch, err := parse(version)
	if err != nil {
		return Release{}, err
	}
	for _, row := range table() {
		if major != 1 || row.minor != minor {
			continue
		}
		if patch > row.newest {
			return Release{}, fmt.Errorf("unknown Kubernetes version %s: the newest v1.%d that this kbuild knows is v1.%[2]d.%d; use that one, or a newer kbuild", version, minor, row.newest)
		}
		r := Release{
			Version:      fmt.Sprintf("v1.%d.%d", minor, patch),
			Registry:     row.registry,
			PullRegistry: newRegistry,
			EtcdFor:      row.etcd(patch),
			CoreDNS:      row.coredns,
			KubeDNS:      row.kubeDNS,
			Pause:        Image{"pause", row.pause},
			ConfigAPI:    row.apis[len(row.apis)-1],
			ConfigAPIs:   row.apis,
			OutputAPI:    row.output,
			Flannel:      "ghcr.io/flannel-io/flannel:v0.28.10",
		}
		r.Etcd = Image{"etcd", r.etcdTag(minor)}
		row.rest(&r)
		return r, nil
	}
	return Release{}, fmt.Errorf("unknown Kubernetes version %s: this kbuild knows %s", version, known())
}

// etcdTag is the tag that this release's kubeadm gives etcd for a cluster
// version of minor, which must not be below the lowest key of EtcdFor.
func (r Release) etcdTag(minor int) string {
	return r.EtcdFor[min(minor, slices.Max(slices.Collect(maps.Keys(r.EtcdFor))))]
}

// Range is the patch releases of one minor that the table holds.
type Range struct {
	Oldest string `json:"oldest"` // "v1.19.0"
	Newest string `json:"newest"` // "v1.19.16"
}

// Known returns the versions that Lookup knows, oldest first.
func Known() []Range {
	var ranges []Range
	for _, row := range table() {
		ranges = append(ranges, Range{fmt.Sprintf("v1.%d.0", row.minor), fmt.Sprintf("v1.%d.%d", row.minor, row.newest)})
	}
	return ranges
}

// known is Known in words: "v1.19.0-v1.19.16, v1.20.0-v1.20.15".
func known() string {
	var s []string
	for _, r := range Known() {
		s = append(s, r.Oldest+"-"+r.Newest)
	}
	return strings.Join(s, ", ")
}
