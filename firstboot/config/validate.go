package config

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// KnowsCluster says whether the cluster's configuration is part of n: always on
// a first control plane, and after WithCluster on a node that joins.
func (n *Node) KnowsCluster() bool { return n.Cluster.Networking.ServiceSubnet != "" }

// Validate checks a defaulted node as kubeadm of the image's version does
// (cmd/kubeadm/app/apis/kubeadm/validation), and further for what would only
// come to light when a component does not start. Warnings are for values that
// work but are not what kubeadm recommends. The error is Problems.
func Validate(n *Node, baked images.Baked) (warnings []string, err error) {
	s, err := schema.Load(baked.Release.Minor())
	if err != nil {
		return nil, err
	}
	v := &validator{node: n, rel: baked.Release, schema: s}
	v.registration()
	v.endpoint()
	if n.Role.Joins() {
		v.join()
		if !n.KnowsCluster() {
			return v.warnings, v.probs.err()
		}
	} else {
		v.tokens()
		v.pki()
	}
	v.cluster()
	v.networking(baked)
	v.etcd()
	v.components()
	return v.warnings, v.probs.err()
}

type validator struct {
	node     *Node
	rel      images.Release
	schema   *schema.Schema
	probs    Problems
	warnings []string
}

// bad notes that the value at path cannot be used. what never holds a secret.
func (v *validator) bad(path, what, remedy string) {
	v.probs.add(Problem{Source: v.node.source(path), Field: fieldName(path, v.node.Role), What: what, Remedy: remedy})
}

func (v *validator) warn(format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf(format, args...))
}

var (
	tokenForm = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	groupForm = regexp.MustCompile(`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`)
	flagForm  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
)

func (v *validator) registration() {
	r := v.node.Init.NodeRegistration
	const at = "init.nodeRegistration."
	if errs := validation.IsDNS1123Subdomain(r.Name); len(errs) > 0 {
		v.bad(at+"name", fmt.Sprintf("%q is no node name", printable(r.Name)), "use lower-case letters, digits, '-' and '.', at most 253, a letter or digit first and last")
	} else if len(r.Name) > validation.LabelValueMaxLength {
		v.bad(at+"name", fmt.Sprintf("%q has %d characters; the node's label kubernetes.io/hostname holds at most %d", printable(r.Name), len(r.Name), validation.LabelValueMaxLength), "choose a shorter name, such as the host name without its domain")
	}
	v.socket(at+"criSocket", r.CRISocket)
	v.flags(at+"kubeletExtraArgs", r.KubeletExtraArgs)
	v.cgroupDriver(at+"kubeletExtraArgs.cgroup-driver", r.KubeletExtraArgs.Get("cgroup-driver"))
	v.labels(at+"kubeletExtraArgs.node-labels", r.KubeletExtraArgs.Get("node-labels"))
	for i, t := range r.Taints {
		v.taint(fmt.Sprintf("%staints[%d]", at, i), t)
	}
	for i, name := range r.IgnorePreflightErrors {
		switch all := strings.EqualFold(name, "all"); {
		case all && !v.rel.Has(images.FactIgnoreAll):
			v.bad(fmt.Sprintf("%signorePreflightErrors[%d]", at, i), "\"all\" cannot be used in configuration", "name the checks whose errors shall only warn")
		case all && len(r.IgnorePreflightErrors) > 1:
			v.bad(fmt.Sprintf("%signorePreflightErrors[%d]", at, i), "\"all\" stands for every other check", "keep \"all\", or the others")
		}
	}
	if d := v.node.Init.Patches; d != "" {
		v.absolute("init.patches", d)
	}
	for i, p := range v.node.Init.SkipPhases {
		if what, remedy := checkPhase(v.node.Role, p); what != "" {
			v.bad(fmt.Sprintf("init.skipPhases[%d]", i), what, remedy)
		}
	}
	switch r.ImagePullPolicy {
	case "", corev1.PullIfNotPresent, corev1.PullNever:
	case corev1.PullAlways:
		v.warn("imagePullPolicy Always is not used: the control plane's images are part of this image")
	default:
		v.bad(at+"imagePullPolicy", fmt.Sprintf("%q is no pull policy", printable(string(r.ImagePullPolicy))), "write IfNotPresent, or remove the field")
	}
	if t := v.node.Init.Timeouts; t != nil && t.ControlPlaneComponentHealthCheck != nil {
		v.positive("init.timeouts.controlPlaneComponentHealthCheck", t.ControlPlaneComponentHealthCheck)
	}
	if k := v.node.Init.CertificateKey; k != "" {
		if b, err := hex.DecodeString(k.Reveal()); err != nil || len(b) != 32 {
			v.bad("init.certificateKey", "it is not the hexadecimal form of a 32-byte key", "make one with `openssl rand -hex 32`")
		}
	}
}

func (v *validator) socket(at, s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		v.bad(at, fmt.Sprintf("%q is no path of a socket", printable(s)), "leave it out: the image's containerd is used")
	case u.Scheme == "" && !path.IsAbs(u.Path), u.Scheme != "" && u.Scheme != "unix":
		v.bad(at, fmt.Sprintf("%q is neither an absolute path nor a unix:// URL", printable(s)), "leave it out: the image's containerd is used")
	case socketPath(s) != CRISocket:
		v.bad(at, fmt.Sprintf("this image has one container runtime, at %s", CRISocket), "leave the field out")
	}
}

func (v *validator) absolute(at, p string) {
	if !path.IsAbs(p) {
		v.bad(at, fmt.Sprintf("%q is not an absolute path", printable(p)), "begin it with /")
	}
}

func (v *validator) flags(at string, args Args) {
	for name := range args {
		if !flagForm.MatchString(name) {
			v.bad(at+"."+name, fmt.Sprintf("%q is no flag's name", printable(name)), "write the flag's name without leading dashes, as in `v: \"4\"`")
		}
	}
}

// labels checks the kubelet's --node-labels: the kubelet refuses to start with
// a label of Kubernetes' own domains that it may not set on itself.
func (v *validator) labels(at, s string) {
	if s == "" {
		return
	}
	for _, kv := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(kv, "=")
		errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if !ok || len(errs) > 0 {
			v.bad(at, fmt.Sprintf("%q is no label", printable(kv)), "write name: value, with letters, digits, '-', '_' and '.', at most 63 each")
			continue
		}
		domain, _, ok := strings.Cut(key, "/")
		if ok && !kubeletMaySet(domain, key) {
			v.bad(at, fmt.Sprintf("the kubelet may not set label %q on its own node", printable(key)), "use a label of your own domain, or node.kubernetes.io/… , or set it later with kubectl")
		}
	}
}

// kubeletMaySet follows pkg/kubelet/apis/well_known_labels.go.
func kubeletMaySet(domain, key string) bool {
	own := func(suffix string) bool { return domain == suffix || strings.HasSuffix(domain, "."+suffix) }
	if !own("kubernetes.io") && !own("k8s.io") || own("kubelet.kubernetes.io") || own("node.kubernetes.io") {
		return true
	}
	return slices.Contains([]string{
		"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
		"beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type",
		"topology.kubernetes.io/zone", "topology.kubernetes.io/region",
		"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
		"failure-domain.kubernetes.io/zone", "failure-domain.kubernetes.io/region",
	}, key)
}

func (v *validator) taint(at string, t corev1.Taint) {
	if errs := validation.IsQualifiedName(t.Key); len(errs) > 0 {
		v.bad(at, fmt.Sprintf("%q is no key of a taint", printable(t.Key)), "write e.g. `key: node-role.kubernetes.io/master`")
	}
	if errs := validation.IsValidLabelValue(t.Value); len(errs) > 0 {
		v.bad(at, fmt.Sprintf("%q is no value of a taint", printable(t.Value)), "use letters, digits, '-', '_' and '.', at most 63")
	}
	switch t.Effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		v.bad(at, fmt.Sprintf("%q is no effect of a taint", printable(string(t.Effect))), "write NoSchedule, PreferNoSchedule or NoExecute")
	}
}

func (v *validator) tokens() {
	ids := map[string]bool{}
	for i, t := range v.node.Init.BootstrapTokens {
		at := fmt.Sprintf("init.bootstrapTokens[%d].", i)
		if !tokenForm.MatchString(t.Token.Reveal()) {
			v.bad(at+"token", "it has not the form of a bootstrap token", "write six and sixteen lower-case letters or digits, as in abcdef.0123456789abcdef; `kbuild token generate` makes one")
		} else if id := t.Token.Reveal()[:6]; ids[id] {
			v.bad(at+"token", "another token has the same first six characters, its ID", "choose another")
		} else {
			ids[id] = true
		}
		auth := slices.Contains(t.Usages, "authentication")
		for _, u := range t.Usages {
			if u != "authentication" && u != "signing" {
				v.bad(at+"usages", fmt.Sprintf("%q is no usage of a token", printable(u)), "write signing, authentication or both")
			}
		}
		if len(t.Groups) > 0 && !auth {
			v.bad(at+"groups", "groups are for tokens that authenticate", "add authentication to usages")
		}
		for _, g := range t.Groups {
			if !groupForm.MatchString(g) {
				v.bad(at+"groups", fmt.Sprintf("%q is no group of a token", printable(g)), "it must begin with system:bootstrappers: and go on with lower-case letters, digits, ':' and '-'")
			}
		}
		if t.Expires != nil && t.TTL != nil {
			v.bad(at+"ttl", "ttl and expires exclude each other", "keep one of the two")
		}
		if t.TTL != nil && t.TTL.Duration < 0 {
			v.bad(at+"ttl", "a token's lifetime must not be negative", "write a duration such as 24h, or 0s for a token without end")
		}
	}
}

func (v *validator) cluster() {
	c := v.node.Cluster
	v.absolute("cluster.certificatesDir", c.CertificatesDir)
	v.sans("cluster.apiServer.certSANs", c.APIServer.CertSANs)
	for path, s := range map[string]string{"imageRepository": c.ImageRepository, "dns.imageRepository": c.DNS.ImageRepository, "etcd.local.imageRepository": c.Etcd.local().ImageRepository} {
		if what, remedy := images.WrongRepository(s); what != "" {
			v.bad("cluster."+path, what, remedy)
		}
	}
	for path, s := range map[string]string{"dns.imageTag": c.DNS.ImageTag, "etcd.local.imageTag": c.Etcd.local().ImageTag} {
		if what, remedy := images.WrongTag(s); what != "" {
			v.bad("cluster."+path, what, remedy)
		}
	}
	if e := c.ControlPlaneEndpoint; e != "" {
		if _, _, err := parseHostPort(e); err != nil {
			v.bad("cluster.controlPlaneEndpoint", err.Error(), "write a DNS name or an address, and a port after a colon if it is not the API server's: api.example.org:6443, [fd00::1]:6443")
		}
	}
	for g, on := range c.FeatureGates {
		v.featureGate(g, on)
	}
	if a := c.EncryptionAlgorithm; a != "" && !slices.Contains(v.keyAlgorithms(), a) {
		v.bad("cluster.encryptionAlgorithm", fmt.Sprintf("kubeadm %s knows no algorithm %q", v.rel.Version, printable(a)), "it is one of "+list(v.keyAlgorithms()))
	}
	if p := c.CertificateValidityPeriod; p != nil {
		v.positive("cluster.certificateValidityPeriod", p)
		if ca := c.CACertificateValidityPeriod; ca != nil && p.Duration > ca.Duration {
			v.warn("certificateValidityPeriod %s is more than caCertificateValidityPeriod %s", p.Duration, ca.Duration)
		}
	}
	if p := c.CACertificateValidityPeriod; p != nil {
		v.positive("cluster.caCertificateValidityPeriod", p)
	}
	if c.UseHyperKubeImage {
		v.bad("cluster.useHyperKubeImage", "the image holds no hyperkube", "remove the field")
	}
	if c.DNS.Type != "CoreDNS" {
		v.bad("cluster.dns.type", fmt.Sprintf("the image holds no DNS server %q", printable(c.DNS.Type)), "write CoreDNS, or remove the field")
	}
	if t := c.APIServer.TimeoutForControlPlane; t != nil {
		v.positive("cluster.apiServer.timeoutForControlPlane", t)
	}
	if errs := validation.IsDNS1123Subdomain(strings.ToLower(c.ClusterName)); len(errs) > 0 {
		v.warn("clusterName %q is unusual; some tools expect a DNS name", printable(c.ClusterName))
	}
	for name, comp := range map[string]ControlPlaneComponent{"apiServer": c.APIServer.ControlPlaneComponent, "controllerManager": c.ControllerManager, "scheduler": c.Scheduler} {
		v.flags("cluster."+name+".extraArgs", comp.ExtraArgs)
		v.envs("cluster."+name+".extraEnvs", comp.ExtraEnvs)
		v.volumes("cluster."+name+".extraVolumes", comp.ExtraVolumes)
	}
	modes := []string{"Node", "RBAC", "Webhook", "ABAC", "AlwaysAllow", "AlwaysDeny"}
	for mode := range strings.SplitSeq(c.APIServer.ExtraArgs.Get(authorizationMode), ",") {
		if mode != "" && !slices.Contains(modes, mode) {
			v.bad("cluster.apiServer.extraArgs."+authorizationMode, fmt.Sprintf("there is no authorization mode %q", printable(mode)), "modes are "+list(modes)+", separated by commas")
		}
	}
	slices.SortStableFunc(v.probs, func(a, b Problem) int { return strings.Compare(a.Field, b.Field) })
}

// keyAlgorithms are kubeadm's names of them.
func (v *validator) keyAlgorithms() []string {
	known := []string{"RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256"}
	if v.rel.Has(images.FactECDSAP384) {
		known = append(known, "ECDSA-P384")
	}
	return known
}

func (v *validator) featureGate(gate string, on bool) {
	at := "cluster.featureGates." + gate
	if _, ok := v.schema.FeatureGates[gate]; !ok {
		remedy := "remove it; gates of a component go into its extraArgs, as feature-gates"
		if known := slices.Collect(maps.Keys(v.schema.FeatureGates)); len(known) > 1 {
			remedy = "its own are " + list(known) + "; gates of a component go into its extraArgs, as feature-gates"
		}
		v.bad(at, fmt.Sprintf("kubeadm %s has no feature gate %q", v.rel.Version, printable(gate)), remedy)
	} else if gate == "RootlessControlPlane" && on {
		v.bad(at, "kbuild makes no control plane that runs without root", "remove it")
	}
}

// positive refuses a duration that is none.
func (v *validator) positive(at string, d *metav1.Duration) {
	if d.Duration <= 0 {
		v.bad(at, "it must be longer than zero", "write a duration such as 4m0s")
	}
}

// envs checks variables of a static pod, which can read no ConfigMap and no Secret.
func (v *validator) envs(at string, envs []corev1.EnvVar) {
	for i, e := range envs {
		at := fmt.Sprintf("%s[%d]", at, i)
		if errs := validation.IsEnvVarName(e.Name); len(errs) > 0 {
			v.bad(at+".name", fmt.Sprintf("%q is no variable's name", printable(e.Name)), "use letters, digits, '_', '-' and '.', no digit first")
		}
		if f := e.ValueFrom; f != nil && (f.ConfigMapKeyRef != nil || f.SecretKeyRef != nil) {
			v.bad(at+".valueFrom", "a static pod can read no ConfigMap and no Secret", "write its value")
		}
	}
}

func (v *validator) volumes(at string, vols []HostPathMount) {
	names := map[string]bool{}
	for i, m := range vols {
		at := fmt.Sprintf("%s[%d]", at, i)
		if errs := validation.IsDNS1123Label(m.Name); len(errs) > 0 {
			v.bad(at+".name", fmt.Sprintf("%q is no volume's name", printable(m.Name)), "use lower-case letters, digits and '-', at most 63")
		} else if names[m.Name] {
			v.bad(at+".name", fmt.Sprintf("two volumes are named %q", m.Name), "give each its own name")
		}
		names[m.Name] = true
		v.absolute(at+".hostPath", m.HostPath)
		v.absolute(at+".mountPath", m.MountPath)
		switch m.PathType {
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev:
		default:
			v.bad(at+".pathType", fmt.Sprintf("%q is no type of a path", printable(string(m.PathType))), "write DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice or BlockDevice")
		}
	}
}
