package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	oldRegistry = "k8s.gcr.io"      // frozen on 3 April 2023
	newRegistry = "registry.k8s.io" // serves everything the old one did

	master       = "node-role.kubernetes.io/master"
	controlPlane = "node-role.kubernetes.io/control-plane"
	noExternalLB = "node.kubernetes.io/exclude-from-external-load-balancers"
)

// The tables say what changed when: a line is a value and the version from which
// on it holds. They are read from each version's own kubeadm (cmd/kubeadm/app of
// the module k8s.io/kubernetes, in the file that a comment names), and the oracle
// holds them against it. A new patch release adds a line only where something
// changed; a new minor release starts with what holds for the one before.

// since is a value that holds from version From on, until the next one's.
type since[T any] struct {
	From  string // "1.22" or "1.22.17"
	Value T
}

// minor is a minor release that kbuild knows.
type minor struct {
	number int
	newest int    // newest patch that was read
	ends   string // month in which upstream's support ends (kubernetes.io/releases/patch-releases)
}

func minors() []minor {
	return []minor{
		{19, 16, "2021-10"}, {20, 15, "2022-02"}, {21, 14, "2022-06"}, {22, 17, "2022-10"},
		{23, 17, "2023-02"}, {24, 17, "2023-07"}, {25, 16, "2023-10"}, {26, 15, "2024-02"},
		{27, 16, "2024-06"}, {28, 15, "2024-10"}, {29, 15, "2025-02"}, {30, 14, "2025-06"},
		{31, 14, "2025-10"}, {32, 13, "2026-02"}, {33, 13, "2026-06"}, {34, 12, "2026-10"},
		{35, 9, "2027-02"}, {36, 5, "2027-06"}, {37, 2, "2027-10"},
	}
}

// constants/constants.go: DefaultEtcdVersion.
func etcdTags() []since[string] {
	return []since[string]{
		{"1.19.0", "3.4.9-1"}, {"1.19.1", "3.4.13-0"},
		{"1.22.0", "3.5.0-0"}, {"1.22.17", "3.5.6-0"},
		{"1.23.0", "3.5.1-0"}, {"1.23.14", "3.5.5-0"}, {"1.23.15", "3.5.6-0"},
		{"1.24.0", "3.5.3-0"}, {"1.24.9", "3.5.6-0"},
		{"1.25.0", "3.5.4-0"}, {"1.25.4", "3.5.5-0"}, {"1.25.5", "3.5.6-0"}, {"1.25.15", "3.5.9-0"},
		{"1.26.0", "3.5.6-0"}, {"1.26.10", "3.5.9-0"}, {"1.26.13", "3.5.10-0"},
		{"1.27.0", "3.5.7-0"}, {"1.27.7", "3.5.9-0"}, {"1.27.10", "3.5.10-0"}, {"1.27.13", "3.5.12-0"},
		{"1.28.0", "3.5.9-0"}, {"1.28.6", "3.5.10-0"}, {"1.28.8", "3.5.12-0"}, {"1.28.14", "3.5.15-0"},
		{"1.29.0", "3.5.10-0"}, {"1.29.3", "3.5.12-0"}, {"1.29.9", "3.5.15-0"}, {"1.29.14", "3.5.16-0"},
		{"1.30.0", "3.5.12-0"}, {"1.30.5", "3.5.15-0"}, {"1.31.14", "3.5.24-0"},
		{"1.32.0", "3.5.16-0"}, {"1.32.10", "3.5.24-0"},
		{"1.33.0", "3.5.21-0"}, {"1.33.6", "3.5.24-0"},
		{"1.34.0", "3.6.4-0"}, {"1.34.2", "3.6.5-0"}, {"1.35", "3.6.6-0"}, {"1.36", "3.6.8-0"}, {"1.37", "3.7.0-0"},
	}
}

// constants/constants.go: SupportedEtcdVersion of the minor before, where it is
// not that of the release itself.
func etcdTagsBefore() []since[string] {
	return []since[string]{
		{"1.19", "3.4.3-0"},
		{"1.20.0", "3.4.9-1"}, {"1.20.1", ""},
		{"1.22", "3.4.13-0"}, {"1.23", ""},
		{"1.25.15", "3.5.6-0"}, {"1.26.0", ""},
		{"1.26.10", "3.5.6-0"}, {"1.26.13", ""},
		{"1.27.7", "3.5.7-0"}, {"1.27.13", ""},
		{"1.34.0", "3.5.21-0"}, {"1.34.2", "3.5.24-0"}, {"1.35.0", ""},
	}
}

// constants/constants.go: CoreDNSVersion; images/images.go: GetDNSImage.
func coreDNSImages() []since[Image] {
	return []since[Image]{
		{"1.19", Image{"coredns", "1.7.0"}},
		{"1.21", Image{"coredns/coredns", "v1.8.0"}},
		{"1.22", Image{"coredns/coredns", "v1.8.4"}},
		{"1.23", Image{"coredns/coredns", "v1.8.6"}},
		{"1.25", Image{"coredns/coredns", "v1.9.3"}},
		{"1.27", Image{"coredns/coredns", "v1.10.1"}},
		{"1.29", Image{"coredns/coredns", "v1.11.1"}},
		{"1.30.5", Image{"coredns/coredns", "v1.11.3"}},
		{"1.31.0", Image{"coredns/coredns", "v1.11.1"}},
		{"1.31.1", Image{"coredns/coredns", "v1.11.3"}},
		{"1.33", Image{"coredns/coredns", "v1.12.0"}},
		{"1.34", Image{"coredns/coredns", "v1.12.1"}},
		{"1.35", Image{"coredns/coredns", "v1.13.1"}},
		{"1.36", Image{"coredns/coredns", "v1.14.2"}},
		{"1.37", Image{"coredns/coredns", "v1.14.6"}},
	}
}

// constants/constants.go: KubeDNSVersion.
func kubeDNSTags() []since[string] { return []since[string]{{"1.19", "1.14.13"}, {"1.21", ""}} }

// constants/constants.go: PauseVersion; until 1.20 in images/images.go.
func pauseTags() []since[string] {
	return []since[string]{
		{"1.19", "3.2"}, {"1.21", "3.4.1"}, {"1.22", "3.5"}, {"1.23", "3.6"}, {"1.24", "3.7"},
		{"1.25", "3.8"}, {"1.26", "3.9"}, {"1.31", "3.10"}, {"1.34", "3.10.1"}, {"1.36", "3.10.2"},
	}
}

// apis/kubeadm/VERSION/defaults.go: DefaultImageRepository.
func registries() []since[string] {
	return []since[string]{
		{"1.19", oldRegistry}, {"1.22.17", newRegistry}, {"1.23.0", oldRegistry}, {"1.23.15", newRegistry},
		{"1.24.0", oldRegistry}, {"1.24.9", newRegistry},
	}
}

// Versions of kubeadm's config API that its kubeadm reads without being asked
// to try experimental ones, oldest first (apis/kubeadm/scheme/scheme.go,
// util/config/common.go: validateSupportedVersion).
func configAPIs() []since[[]string] {
	return []since[[]string]{
		{"1.19", []string{"v1beta1", "v1beta2"}},
		{"1.22", []string{"v1beta2", "v1beta3"}},
		{"1.27", []string{"v1beta3"}},
		{"1.31", []string{"v1beta3", "v1beta4"}},
		{"1.37", []string{"v1beta4"}},
	}
}

// apis/output/scheme/scheme.go: the version that is preferred.
func outputAPIs() []since[string] {
	return []since[string]{{"1.19", "v1alpha1"}, {"1.23", "v1alpha2"}, {"1.30", "v1alpha3"}}
}

// phases/markcontrolplane/markcontrolplane.go: labelsToAdd.
func nodeLabels() []since[[]string] {
	return []since[[]string]{
		{"1.19", []string{master}},
		{"1.20", []string{master, controlPlane}},
		{"1.21", []string{master, controlPlane, noExternalLB}},
		{"1.24", []string{controlPlane, noExternalLB}},
	}
}

// util/config/initconfiguration.go: SetNodeRegistrationDynamicDefaults.
func nodeTaints() []since[[]string] {
	return []since[[]string]{{"1.19", []string{master}}, {"1.24", []string{master, controlPlane}}, {"1.25", []string{controlPlane}}}
}

// constants/constants.go: MinExternalEtcdVersion.
func externalEtcds() []since[string] {
	return []since[string]{
		{"1.19", "3.2.18"}, {"1.28", "3.4.13-4"},
		{"1.31.0", "3.5.11-0"}, {"1.31.14", "3.5.24-0"}, {"1.32.0", "3.5.11-0"}, {"1.32.10", "3.5.24-0"},
		{"1.33.0", "3.5.11-0"}, {"1.33.6", "3.5.24-0"}, {"1.34.0", "3.5.21-0"}, {"1.34.2", "3.5.24-0"},
	}
}

// How many minor versions a kubelet may be older than the API server: the
// version skew policy; constants/constants.go: MinimumKubeletVersion.
func kubeletSkews() []since[int] { return []since[int]{{"1.19", 2}, {"1.28", 3}} }

// phases/certs/certlist.go: the group of the certificate by which the API server
// is known to kubelets; empty where the binding kubeadm:apiserver-kubelet-client
// gives its user the rights.
func kubeletClientGroups() []since[string] {
	const masters, admins = "system:masters", "kubeadm:cluster-admins"
	return []since[string]{
		{"1.19", masters}, {"1.29", admins}, {"1.33.12", ""}, {"1.34.0", admins}, {"1.34.8", ""},
		{"1.35.0", admins}, {"1.35.5", ""}, {"1.36.0", admins}, {"1.36.1", ""},
	}
}

// Versions of the CRI that the kubelet speaks, oldest first
// (k8s.io/cri-client, until 1.30 pkg/kubelet/cri/remote/remote_runtime.go).
func criVersions() []since[[]string] {
	return []since[[]string]{{"1.19", []string{"v1alpha2"}}, {"1.23", []string{"v1alpha2", "v1"}}, {"1.26", []string{"v1"}}}
}

// version is a version's minor and patch number; as the end of a range a patch
// of -1 stands for all patches.
type version struct{ minor, patch int }

// readVersion reads "1.22.17" and "1.22"; the tables hold no others.
func readVersion(s string) version {
	v := version{patch: -1}
	if n, err := fmt.Sscanf(s, "1.%d.%d", &v.minor, &v.patch); n == 0 {
		panic("a bug in kbuild: the version table holds " + s + ": " + err.Error())
	}
	return v
}

func (v version) less(w version) bool {
	return v.minor < w.minor || v.minor == w.minor && v.patch < w.patch
}

// at is the value that holds in version v, the zero value before the first.
func at[T any](table []since[T], v version) (value T) {
	for _, s := range table {
		if !v.less(readVersion(s.From)) {
			value = s.Value
		}
	}
	return value
}

// Lookup returns the facts of version, e.g. "v1.19.12". A minor that the tables
// do not hold is an error, and a patch newer than the newest that was read is an
// UnseenPatch.
func Lookup(name string) (Release, error) {
	major, number, patch, err := parse(name)
	if err != nil {
		return Release{}, err
	}
	i := slices.IndexFunc(minors(), func(m minor) bool { return m.number == number })
	if major != 1 || i < 0 {
		return Release{}, fmt.Errorf("unknown Kubernetes version %s: this kbuild knows %s", name, known())
	}
	if newest := minors()[i].newest; patch > newest {
		return Release{}, UnseenPatch{fmt.Sprintf("v1.%d.%d", number, patch), fmt.Sprintf("v1.%d.%d", number, newest)}
	}
	v := version{number, patch}
	apis, facts := at(configAPIs(), v), factsOf(v)
	r := Release{
		Version:          fmt.Sprintf("v1.%d.%d", number, patch),
		Registry:         at(registries(), v),
		PullRegistry:     newRegistry,
		Etcd:             Image{"etcd", at(etcdTags(), v)},
		CoreDNS:          at(coreDNSImages(), v),
		KubeDNS:          at(kubeDNSTags(), v),
		Pause:            Image{"pause", at(pauseTags(), v)},
		ConfigAPI:        apis[len(apis)-1],
		ConfigAPIs:       apis,
		OutputAPI:        at(outputAPIs(), v),
		KubeletConfigMap: kubeletConfigMap(facts, number),
		Labels:           at(nodeLabels(), v),
		Taints:           at(nodeTaints(), v),
		ExternalEtcd:     at(externalEtcds(), v),
		KubeletSkew:      at(kubeletSkews(), v),
		CRI:              at(criVersions(), v),
		KubeletClient:    at(kubeletClientGroups(), v),
		Flannel:          "ghcr.io/flannel-io/flannel:v0.28.10",
		Facts:            facts,
	}
	before := at(etcdTagsBefore(), v)
	if before == "" {
		before = r.Etcd.Tag
	}
	r.EtcdFor = map[int]string{number - 1: before, number: r.Etcd.Tag}
	return r, nil
}

// etcdTag is the tag that this release's kubeadm gives etcd for a cluster
// version of minor, which must not be below the lowest key of EtcdFor.
func (r Release) etcdTag(minor int) string {
	return r.EtcdFor[min(minor, slices.Max(slices.Collect(maps.Keys(r.EtcdFor))))]
}

// Range is the patch releases of one minor that the tables hold.
type Range struct {
	Oldest string `json:"oldest"` // "v1.19.0"
	Newest string `json:"newest"` // "v1.19.16"
	// Ends is the month in which upstream's support ends, "2021-10".
	Ends string `json:"ends"`
}

// Known returns the versions that Lookup knows, oldest first.
func Known() []Range {
	var ranges []Range
	for _, m := range minors() {
		ranges = append(ranges, Range{fmt.Sprintf("v1.%d.0", m.number), fmt.Sprintf("v1.%d.%d", m.number, m.newest), m.ends})
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
