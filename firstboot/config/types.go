package config

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/images"
)

// Node is who this node is: everything that the steps need to know, defaulted
// and valid. It is frozen on disk by the metadata step; secrets in it have
// type Secret.
type Node struct {
	Role Role `json:"role"`
	// Init holds what every node has, whatever its role: NodeRegistration,
	// LocalAPIEndpoint, CertificateKey, SkipPhases, Patches. The rest of it is
	// the first control plane's alone.
	Init InitConfiguration `json:"init"`
	// Join is empty on a first control plane.
	Join JoinConfiguration `json:"join,omitzero"`
	// Cluster, Kubelet and KubeProxy are the cluster's; a node that joins has
	// them when it has found its cluster (WithCluster).
	Cluster ClusterConfiguration `json:"cluster"`
	// Kubelet and KubeProxy are the documents of those kinds (apiVersion and
	// kind included), with what kubeadm of this version sets filled in.
	Kubelet   map[string]any `json:"kubelet"`
	KubeProxy map[string]any `json:"kubeProxy"`
	// Sources tells where each value came from: "init.nodeRegistration.name" →
	// "credential kbuild.userdata, line 4", "hostname", "default".
	Sources map[string]string `json:"sources,omitempty"`
	// CgroupDriver is that of the machine's container runtime, "systemd" or
	// "cgroupfs"; empty is systemd. It is the running image's, and so not frozen.
	CgroupDriver string `json:"-"`
	// Scrubbed says that the secrets have served and are gone from here.
	Scrubbed bool `json:"forgotten,omitempty"`
}

// Role is what a node is to its cluster.
type Role string

const (
	RoleInit         Role = "init"
	RoleControlPlane Role = "control-plane"
	RoleWorker       Role = "worker"
)

// Joins says whether a node of the role joins a cluster that there is already.
func (r Role) Joins() bool { return r == RoleControlPlane || r == RoleWorker }

// Secret is text that never shows itself in logs or plans; JSON holds it in
// the clear, because the frozen node configuration (mode 0600) must.
type Secret string

// InitConfiguration is kubeadm's kind. The types here hold what all versions of
// the config API can say; each version is converted to them and from them (see
// api.go). Field names in JSON are kubeadm's.
type InitConfiguration struct {
	BootstrapTokens  []BootstrapToken `json:"bootstrapTokens,omitempty"`
	NodeRegistration NodeRegistration `json:"nodeRegistration,omitempty"`
	LocalAPIEndpoint APIEndpoint      `json:"localAPIEndpoint,omitempty"`
	CertificateKey   Secret           `json:"certificateKey,omitempty"`
	// UploadCerts asks for the upload-certs step (kubeadm init --upload-certs).
	UploadCerts bool `json:"uploadCerts,omitempty"`
	// SkipPhases lists steps that do not run (kubeadm init --skip-phases).
	SkipPhases []string `json:"skipPhases,omitempty"`
	// Patches is a directory of patches for static pods (kubeadm --experimental-patches).
	Patches string `json:"patches,omitempty"`
	// Timeouts are kubeadm's, since v1beta4. A node waits for others as long as it
	// takes; only ControlPlaneComponentHealthCheck has an effect.
	Timeouts *Timeouts `json:"timeouts,omitempty"`
	// PKI is the identity of a cluster that was made before its first boot: PEM
	// by file below the certificates directory ("etcd/ca.key").
	PKI map[string]Secret `json:"pki,omitempty"`
}

// Timeouts are how long kubeadm waits for what.
type Timeouts struct {
	ControlPlaneComponentHealthCheck *metav1.Duration `json:"controlPlaneComponentHealthCheck,omitempty"`
	KubeletHealthCheck               *metav1.Duration `json:"kubeletHealthCheck,omitempty"`
	KubernetesAPICall                *metav1.Duration `json:"kubernetesAPICall,omitempty"`
	EtcdAPICall                      *metav1.Duration `json:"etcdAPICall,omitempty"`
	TLSBootstrap                     *metav1.Duration `json:"tlsBootstrap,omitempty"`
	Discovery                        *metav1.Duration `json:"discovery,omitempty"`
	UpgradeManifests                 *metav1.Duration `json:"upgradeManifests,omitempty"`
}

// JoinConfiguration is kubeadm's kind, but for what Node.Init holds:
// nodeRegistration, patches, skipPhases, timeouts, and controlPlane's
// localAPIEndpoint and certificateKey.
type JoinConfiguration struct {
	CACertPath string    `json:"caCertPath,omitempty"`
	Discovery  Discovery `json:"discovery,omitzero"`
}

// Discovery says how a joining node finds its cluster and knows that it is the
// right one. Exactly one of BootstrapToken and File is set.
type Discovery struct {
	BootstrapToken    *BootstrapTokenDiscovery `json:"bootstrapToken,omitempty"`
	File              *FileDiscovery           `json:"file,omitempty"`
	TLSBootstrapToken Secret                   `json:"tlsBootstrapToken,omitempty"`
	// Timeout is kubeadm's; a node waits for its cluster as long as it takes.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// BootstrapTokenDiscovery trusts a cluster that signs with the token, and whose
// authority is one of the pins.
type BootstrapTokenDiscovery struct {
	Token                    Secret   `json:"token"`
	APIServerEndpoint        string   `json:"apiServerEndpoint,omitempty"` // host:port
	CACertHashes             []string `json:"caCertHashes,omitempty"`      // "sha256:HEX" of a subject public key info
	UnsafeSkipCAVerification bool     `json:"unsafeSkipCAVerification,omitempty"`
}

// FileDiscovery trusts a kubeconfig.
type FileDiscovery struct {
	KubeConfigPath string `json:"kubeConfigPath"` // absolute path or https URL
}

// BootstrapToken is a token that new nodes authenticate with.
type BootstrapToken struct {
	Token       Secret           `json:"token"`
	Description string           `json:"description,omitempty"`
	TTL         *metav1.Duration `json:"ttl,omitempty"`
	Expires     *metav1.Time     `json:"expires,omitempty"`
	Usages      []string         `json:"usages,omitempty"`
	Groups      []string         `json:"groups,omitempty"`
}

// NodeRegistration is how the node registers itself.
type NodeRegistration struct {
	Name      string `json:"name,omitempty"`
	CRISocket string `json:"criSocket,omitempty"`
	// Taints: nil means the default for the role, empty means none.
	Taints                []corev1.Taint    `json:"taints"`
	KubeletExtraArgs      Args              `json:"kubeletExtraArgs,omitempty"`
	IgnorePreflightErrors []string          `json:"ignorePreflightErrors,omitempty"`
	ImagePullPolicy       corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	ImagePullSerial       *bool             `json:"imagePullSerial,omitempty"`
}

// DefaultTaints are those of a control-plane node whose configuration names none.
func DefaultTaints(rel images.Release) []corev1.Taint {
	var taints []corev1.Taint
	for _, key := range rel.Taints {
		taints = append(taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	return taints
}

// APIEndpoint is where this node's API server listens.
type APIEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress,omitempty"`
	BindPort         int32  `json:"bindPort,omitempty"`
}

// ClusterConfiguration is kubeadm's kind.
type ClusterConfiguration struct {
	Etcd                 Etcd                  `json:"etcd,omitempty"`
	Networking           Networking            `json:"networking,omitempty"`
	KubernetesVersion    string                `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint string                `json:"controlPlaneEndpoint,omitempty"`
	APIServer            APIServer             `json:"apiServer,omitempty"`
	ControllerManager    ControlPlaneComponent `json:"controllerManager,omitempty"`
	Scheduler            ControlPlaneComponent `json:"scheduler,omitempty"`
	DNS                  DNS                   `json:"dns,omitempty"`
	CertificatesDir      string                `json:"certificatesDir,omitempty"`
	ImageRepository      string                `json:"imageRepository,omitempty"`
	UseHyperKubeImage    bool                  `json:"useHyperKubeImage,omitempty"`
	FeatureGates         map[string]bool       `json:"featureGates,omitempty"`
	ClusterName          string                `json:"clusterName,omitempty"`
	Proxy                Proxy                 `json:"proxy,omitzero"`
	// EncryptionAlgorithm is that of keys, "RSA-2048" or another of kubeadm's
	// names; empty is the version's default.
	EncryptionAlgorithm string `json:"encryptionAlgorithm,omitempty"`
	// How long certificates and the authorities' own are valid; nil is kubeadm's
	// default, a year and ten years.
	CertificateValidityPeriod   *metav1.Duration `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod *metav1.Duration `json:"caCertificateValidityPeriod,omitempty"`
}

// ControlPlaneTimeout is how long the control plane may take to start, and
// whether the configuration says so.
func (n *Node) ControlPlaneTimeout() (limit time.Duration, given bool) {
	if t := n.Init.Timeouts; t != nil && t.ControlPlaneComponentHealthCheck != nil {
		return t.ControlPlaneComponentHealthCheck.Duration, true
	}
	if t := n.Cluster.APIServer.TimeoutForControlPlane; t != nil {
		return t.Duration, true
	}
	return defaultTimeout, false
}

// Proxy is the add-on kube-proxy.
type Proxy struct {
	Disabled bool `json:"disabled,omitempty"`
}

// ControlPlaneComponent holds what is common to the control plane's parts.
type ControlPlaneComponent struct {
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ExtraArgs    Args            `json:"extraArgs,omitempty"`
	ExtraVolumes []HostPathMount `json:"extraVolumes,omitempty"`
}

// APIServer is the API server's part of ClusterConfiguration.
type APIServer struct {
	ControlPlaneComponent  `json:",inline"`
	CertSANs               []string         `json:"certSANs,omitempty"`
	TimeoutForControlPlane *metav1.Duration `json:"timeoutForControlPlane,omitempty"`
}

// DNS is the cluster's DNS add-on.
type DNS struct {
	Type      string `json:"type"`
	Disabled  bool   `json:"disabled,omitempty"`
	ImageMeta `json:",inline"`
}

// ImageMeta changes where an image comes from.
type ImageMeta struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
}

// Etcd is local or external; never both.
type Etcd struct {
	Local    *LocalEtcd    `json:"local,omitempty"`
	External *ExternalEtcd `json:"external,omitempty"`
}

// local is Local, empty where it is not set.
func (e Etcd) local() LocalEtcd {
	if e.Local == nil {
		return LocalEtcd{}
	}
	return *e.Local
}

// LocalEtcd runs as a static pod.
type LocalEtcd struct {
	ExtraEnvs      []corev1.EnvVar `json:"extraEnvs,omitempty"`
	ImageMeta      `json:",inline"`
	DataDir        string   `json:"dataDir"`
	ExtraArgs      Args     `json:"extraArgs,omitempty"`
	ServerCertSANs []string `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string `json:"peerCertSANs,omitempty"`
}

// ExternalEtcd runs elsewhere.
type ExternalEtcd struct {
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"caFile"`
	CertFile  string   `json:"certFile"`
	KeyFile   string   `json:"keyFile"`
	// HTTPEndpoints serve health where Endpoints do not; since v1.35.
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"`
}

// Networking is the cluster's subnets (comma-separated pairs are dual-stack)
// and DNS domain.
type Networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

// HostPathMount is a directory or file of the host in a static pod.
type HostPathMount struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly,omitempty"`
	PathType  corev1.HostPathType `json:"pathType,omitempty"`
}
