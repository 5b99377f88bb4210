package images

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	etcdversion "k8s.io/apimachinery/pkg/util/version"
)

// ListConfig is the part of a cluster's configuration that decides its images:
// the fields of ClusterConfiguration that kubeadm reads for it. The zero value is
// the release's default.
type ListConfig struct {
	KubernetesVersion string `json:"kubernetesVersion,omitempty"` // of the control plane; "" is the release's own. Like kubeadm, another minor may be named
	ImageRepository   string `json:"imageRepository,omitempty"`   // in place of Release.Registry
	HyperKube         bool   `json:"useHyperKubeImage,omitempty"`

	EtcdExternal   bool   `json:"etcdExternal,omitempty"`   // etcd.external: no etcd image
	EtcdRepository string `json:"etcdRepository,omitempty"` // etcd.local.imageRepository
	EtcdTag        string `json:"etcdTag,omitempty"`        // etcd.local.imageTag

	DNSType       string `json:"dnsType,omitempty"`       // "", "CoreDNS" or "kube-dns"
	DNSRepository string `json:"dnsRepository,omitempty"` // dns.imageRepository
	DNSTag        string `json:"dnsTag,omitempty"`        // dns.imageTag
	DNSDisabled   bool   `json:"dnsDisabled,omitempty"`   // dns.disabled
	ProxyDisabled bool   `json:"proxyDisabled,omitempty"` // proxy.disabled
}

// The kinds of DNS add-on.
const (
	CoreDNS = "CoreDNS"
	KubeDNS = "kube-dns"
)

// List names the images of a cluster, exactly as `kubeadm config images list`
// of the release prints them, in its order. It is an error when this kubeadm
// would not deploy c.
func List(r Release, c ListConfig) ([]string, error) {
	if err := r.check(c); err != nil {
		return nil, fmt.Errorf("cannot list the images of Kubernetes %s: %w", r.Version, err)
	}
	var core, dns, base []string
	switch {
	case c.HyperKube:
		core = []string{r.KubernetesImage("hyperkube", c)}
	default:
		for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
			if name != "kube-proxy" || !c.ProxyDisabled {
				core = append(core, r.KubernetesImage(name, c))
			}
		}
	}
	if !c.DNSDisabled {
		dns = r.DNSImages(c)
	}
	base = []string{r.PauseImage(c)}
	if !c.EtcdExternal {
		base = append(base, r.EtcdImage(c))
	}
	if r.Has(FactDNSFirst) {
		return slices.Concat(core, dns, base), nil
	}
	return slices.Concat(core, base, dns), nil
}

// KubernetesImage is the full name of a component's image: "kube-apiserver",
// "kube-controller-manager", "kube-scheduler" or "kube-proxy".
func (r Release) KubernetesImage(component string, c ListConfig) string {
	if c.HyperKube {
		component = "hyperkube"
	}
	return Image{component, tag(r.version(c))}.Ref(r.registry(c))
}

// EtcdImage is the full name of the image of a local etcd.
func (r Release) EtcdImage(c ListConfig) string {
	i := Image{r.Etcd.Repo, r.etcdTagFor(c)}
	if c.EtcdRepository != "" {
		return i.Ref(c.EtcdRepository)
	}
	return i.Ref(r.registry(c))
}

// etcdTagFor is the tag of the image of a local etcd.
func (r Release) etcdTagFor(c ListConfig) string {
	if c.EtcdTag != "" {
		return c.EtcdTag
	}
	_, minor, _, err := parseLong(r.version(c))
	if err != nil {
		minor = r.Minor()
	}
	return r.etcdTag(minor)
}

// EtcdFeatureGates says whether etcd's check for corruption is a feature gate and
// its notification of watchers a flag of its own, not experimental flags both.
// Like kubeadm it takes a tag that is no version for an older etcd.
func (r Release) EtcdFeatureGates(c ListConfig) bool {
	if !r.Has(FactEtcdTagDecides) {
		return r.Has(FactEtcdFeatureGates)
	}
	v, err := etcdversion.ParseSemantic(r.etcdTagFor(c))
	return err == nil && v.AtLeast(etcdversion.MustParseSemantic("3.6.0"))
}

// PauseImage is the full name of the sandbox image.
func (r Release) PauseImage(c ListConfig) string { return r.Pause.Ref(r.registry(c)) }

// DNSImages are the full names of the DNS add-on's images: one for CoreDNS,
// three for kube-dns (the server, its sidecar, and dnsmasq).
func (r Release) DNSImages(c ListConfig) []string {
	registry := r.registry(c)
	if c.DNSRepository != "" {
		registry = c.DNSRepository
	}
	i, names := r.CoreDNS, []string{r.CoreDNS.Repo}
	if c.DNSType == KubeDNS {
		i.Tag, names = r.KubeDNS, []string{"k8s-dns-kube-dns", "k8s-dns-sidecar", "k8s-dns-dnsmasq-nanny"}
	} else if registry != r.Registry {
		// CoreDNS is one level deeper in the default registry only.
		names = []string{i.Repo[strings.LastIndex(i.Repo, "/")+1:]}
	}
	if c.DNSTag != "" {
		i.Tag = c.DNSTag
	}
	var refs []string
	for _, i.Repo = range names {
		refs = append(refs, i.Ref(registry))
	}
	return refs
}

func (r Release) registry(c ListConfig) string {
	if c.ImageRepository != "" {
		return c.ImageRepository
	}
	return r.Registry
}

// version is the control plane's version, with its v.
func (r Release) version(c ListConfig) string {
	if c.KubernetesVersion == "" {
		return r.Version
	}
	return "v" + strings.TrimPrefix(c.KubernetesVersion, "v")
}

// repository is one that a registry can have, with or without a host; the
// grammar of references is in distribution's reference/regexp.go.
var repository = regexp.MustCompile(`^(` + hostPart + `(\.` + hostPart + `)*(:[0-9]+)?|\[[0-9a-fA-F:]+\](:[0-9]+)?|` + pathPart + `)(/` + pathPart + `)*$`)

const (
	hostPart = `[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?`
	pathPart = `[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*`
)

var tagFormat = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// WrongRepository says why s cannot be the image repository of a
// configuration, and what to write; both are empty where it can, or is empty.
func WrongRepository(s string) (what, remedy string) {
	if s == "" || repository.MatchString(s) {
		return "", ""
	}
	return fmt.Sprintf("%.80q is not an image repository", s), "write HOST[:PORT][/PATH] without scheme and without a slash at the end, in lower case, as in registry.example.com:5000/k8s"
}

// WrongTag says why s cannot be an image's tag, and what to write; both are
// empty where it can, or is empty.
func WrongTag(s string) (what, remedy string) {
	if s == "" || tagFormat.MatchString(s) {
		return "", ""
	}
	return fmt.Sprintf("%.80q is not an image tag", s), "write at most 128 letters, digits, '_', '.' and '-', the first no '.' or '-', as in 3.4.13-0"
}

func (r Release) check(c ListConfig) error {
	major, minor, patch, err := parseLong(r.version(c))
	if err != nil {
		return fmt.Errorf("kubernetesVersion: %w", err)
	}
	lowest := slices.Min(slices.Collect(maps.Keys(r.EtcdFor)))
	if major != 1 || minor < lowest || minor == lowest && patch == 0 && strings.Contains(c.KubernetesVersion, "-") {
		return fmt.Errorf("kubernetesVersion: kubeadm %s deploys no control plane below v1.%d.0, and not %s", r.Version, lowest, r.version(c))
	}
	for _, f := range []struct{ field, value string }{
		{"imageRepository", c.ImageRepository}, {"etcd.local.imageRepository", c.EtcdRepository}, {"dns.imageRepository", c.DNSRepository},
	} {
		if what, remedy := WrongRepository(f.value); what != "" {
			return fmt.Errorf("%s: %s: %s", f.field, what, remedy)
		}
	}
	for _, f := range []struct{ field, value string }{{"etcd.local.imageTag", c.EtcdTag}, {"dns.imageTag", c.DNSTag}} {
		if what, remedy := WrongTag(f.value); what != "" {
			return fmt.Errorf("%s: %s: %s", f.field, what, remedy)
		}
	}
	switch {
	case c.HyperKube && !r.Has(FactHyperKube):
		return fmt.Errorf("useHyperKubeImage: the hyperkube image no longer exists: remove the field")
	case c.DNSType != "" && c.DNSType != CoreDNS && c.DNSType != KubeDNS:
		return fmt.Errorf("dns.type: %q is neither %s nor %s", c.DNSType, CoreDNS, KubeDNS)
	case c.DNSType == KubeDNS && r.KubeDNS == "":
		return fmt.Errorf("dns.type: kube-dns is no longer supported: use %s", CoreDNS)
	}
	return nil
}

var versionTag = regexp.MustCompile(`[^-a-zA-Z0-9_.]`)

// tag turns a version into a tag: no tag has a "+".
func tag(version string) string { return versionTag.ReplaceAllString(version, "_") }

var longVersion = regexp.MustCompile(`^v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)([-+][-0-9a-zA-Z.+]*)?$`)

// parseLong is parse for versions that may have a suffix: "v1.19.0-rc.1".
func parseLong(v string) (major, minor, patch int, err error) {
	m := longVersion.FindStringSubmatch(v)
	if m == nil {
		return 0, 0, 0, fmt.Errorf("%q is not a full version: write vMAJOR.MINOR.PATCH, as in v1.19.12 (labels such as stable-1 need the network and are not looked up)", v)
	}
	return parse(strings.Join(m[1:4], "."))
}

// PullName is the name under which ref, a full image name, is served today:
// what the frozen k8s.gcr.io held is at registry.k8s.io. Other names stay.
func PullName(ref string) string {
	if rest, ok := strings.CutPrefix(ref, oldRegistry+"/"); ok {
		return newRegistry + "/" + rest
	}
	return ref
}
