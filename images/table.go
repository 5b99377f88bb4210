package images

import "fmt"

// row is what one minor release holds; patch-dependent facts are functions of
// the patch number.
type row struct {
	minor    int
	registry string
	etcd     func(patch int) string
	coredns  Image
	pause    string
	api      string
	rest     func(*Release)
}

func always(tag string) func(int) string { return func(int) string { return tag } }

const (
	oldRegistry = "k8s.gcr.io"      // frozen on 3 April 2023
	newRegistry = "registry.k8s.io" // serves everything the old one did
)

// table is read from each version's own kubeadm (cmd/kubeadm/app/constants)
// and checked against `kubeadm config images list` by the oracle.
func table() []row {
	return []row{
		{minor: 19, registry: oldRegistry, etcd: always("3.4.13-0"), coredns: Image{"coredns", "1.7.0"}, pause: "3.2", api: "v1beta2", rest: func(r *Release) {
			r.KubeletConfigMap = "kubelet-config-1.19"
			r.Labels = []string{"node-role.kubernetes.io/master"}
			r.Taint = "node-role.kubernetes.io/master"
			r.ClusterStatus = true
			r.CRI = "v1alpha2"
			r.Facts = facts(FactInsecurePort)
		}},
		{minor: 20, registry: oldRegistry, etcd: always("3.4.13-0"), coredns: Image{"coredns", "1.7.0"}, pause: "3.2", api: "v1beta2", rest: func(r *Release) {
			r.KubeletConfigMap = "kubelet-config-1.20"
			r.Labels = []string{"node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"}
			r.Taint = "node-role.kubernetes.io/master"
			r.ClusterStatus = true
			r.CRI = "v1alpha2"
			r.Facts = facts(FactInsecurePort, FactServiceAccountIssuer)
		}},
		{minor: 37, registry: newRegistry, etcd: always("3.7.0-0"), coredns: Image{"coredns/coredns", "v1.14.6"}, pause: "3.10.2", api: "v1beta4", rest: func(r *Release) {
			r.KubeletConfigMap = "kubelet-config"
			r.Labels = []string{"node-role.kubernetes.io/control-plane"}
			r.Taint = "node-role.kubernetes.io/control-plane"
			r.SuperAdminConf = true
			r.CRI = "v1"
			r.Facts = facts(FactServiceAccountIssuer)
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

// Lookup returns the facts of version, e.g. "v1.19.12".
func Lookup(version string) (Release, error) {
	major, minor, patch, err := parse(version)
	if err != nil {
		return Release{}, err
	}
	for _, row := range table() {
		if major != 1 || row.minor != minor {
			continue
		}
		r := Release{
			Version:      fmt.Sprintf("v1.%d.%d", minor, patch),
			Registry:     row.registry,
			PullRegistry: newRegistry,
			Etcd:         Image{"etcd", row.etcd(patch)},
			CoreDNS:      row.coredns,
			Pause:        Image{"pause", row.pause},
			ConfigAPI:    row.api,
			Flannel:      "ghcr.io/flannel-io/flannel:v0.28.10",
		}
		row.rest(&r)
		return r, nil
	}
	return Release{}, fmt.Errorf("cannot build Kubernetes %s: known minors are %s", version, known())
}

func known() string {
	s := ""
	for i, row := range table() {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("v1.%d", row.minor)
	}
	return s
}
