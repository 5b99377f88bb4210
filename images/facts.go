package images

// Fact names a yes-or-no difference between versions.
type Fact string

// Facts. Which versions have them is said in factSpans.
const (
	// Configuration.

	// FactClusterStatus: kubeadm-config holds a ClusterStatus beside the
	// ClusterConfiguration.
	FactClusterStatus Fact = "cluster-status"
	// FactHyperKube: the config field useHyperKubeImage works.
	FactHyperKube Fact = "hyperkube"
	// FactVersionedKubeletConfig: the ConfigMap kubelet-config carries the minor
	// version in its name.
	FactVersionedKubeletConfig Fact = "versioned-kubelet-config"
	// FactAuthorizationModeInConfig: kubeadm writes the API server's
	// authorization-mode into the extraArgs of kubeadm-config. Later it sets none
	// where the user gives authorization-config.
	FactAuthorizationModeInConfig Fact = "authorization-mode-in-config"
	// FactDualStackGate: kubeadm passes its feature gate IPv6DualStack on to the
	// components.
	FactDualStackGate Fact = "dual-stack-gate"
	// FactDualStack: dual-stack is on unless a gate turns it off.
	FactDualStack Fact = "dual-stack"
	// FactIgnoreAll: ignorePreflightErrors may be "all" in a configuration file.
	FactIgnoreAll Fact = "ignore-all"
	// FactECDSAP384: encryptionAlgorithm may be ECDSA-P384.
	FactECDSAP384 Fact = "ecdsa-p384"
	// FactProxyMode: kubeadm writes kube-proxy's mode, iptables, where the user
	// names none.
	FactProxyMode Fact = "proxy-mode"
	// FactNFTables: kube-proxy has the mode nftables.
	FactNFTables Fact = "nftables"
	// FactUserspaceProxy: kube-proxy has the mode userspace.
	FactUserspaceProxy Fact = "userspace-proxy"
	// FactDNSFirst: kubeadm lists the DNS image before pause and etcd, not
	// after them.
	FactDNSFirst Fact = "dns-first"
	// FactMemCheck: kubeadm's preflight wants 1700 MB of memory for a control
	// plane.
	FactMemCheck Fact = "mem-check"

	// Static pods.

	// FactAPIServerInsecurePort: kubeadm sets --insecure-port=0 for
	// kube-apiserver.
	FactAPIServerInsecurePort Fact = "apiserver-insecure-port"
	// FactInsecurePort: kubeadm sets --port=0 for kube-controller-manager and
	// kube-scheduler.
	FactInsecurePort Fact = "insecure-port"
	// FactServiceAccountIssuer: kubeadm sets --service-account-issuer and
	// --service-account-signing-key-file for kube-apiserver.
	FactServiceAccountIssuer Fact = "service-account-issuer"
	// FactNodeCIDRMask: kubeadm sets --node-cidr-mask-size (or its -ipv4 and
	// -ipv6 forms) for kube-controller-manager where there is a pod subnet.
	FactNodeCIDRMask Fact = "node-cidr-mask"
	// FactArgsAppended: a component's own flags follow kubeadm's, in the order in
	// which they were given; before, all were sorted by name.
	FactArgsAppended Fact = "args-appended"
	// FactFlexVolume: kubeadm mounts the directory of FlexVolume drivers into
	// kube-controller-manager.
	FactFlexVolume Fact = "flex-volume"
	// FactCATrust: kubeadm mounts /etc/pki/ca-trust and /etc/pki/tls/certs, not
	// all of /etc/pki.
	FactCATrust Fact = "ca-trust"
	// FactSeccomp: the static pods ask for the runtime's seccomp profile.
	FactSeccomp Fact = "seccomp"
	// FactPodPriority: the static pods carry the number of their priority class.
	FactPodPriority Fact = "pod-priority"
	// FactProbePort: the static pods name the port of their probes "probe-port".
	FactProbePort Fact = "probe-port"
	// FactSchedulerReadyz: kube-scheduler is probed at /livez and /readyz, not at
	// /healthz alone.
	FactSchedulerReadyz Fact = "scheduler-readyz"

	// FactPatchKubelet: kubeadm's patches may be for the kubelet's configuration.
	FactPatchKubelet Fact = "patch-kubelet"
	// FactPatchCoreDNS: kubeadm's patches may be for CoreDNS' Deployment.
	FactPatchCoreDNS Fact = "patch-coredns"
	// FactPatchKubeProxy: kubeadm's patches may be for kube-proxy's DaemonSet.
	FactPatchKubeProxy Fact = "patch-kube-proxy"

	// etcd.

	// FactEtcdRequests: kubeadm's etcd static pod requests 100m of CPU and
	// 100Mi of memory.
	FactEtcdRequests Fact = "etcd-requests"
	// FactEtcdCorruptCheck: etcd checks its data for corruption before it serves.
	FactEtcdCorruptCheck Fact = "etcd-corrupt-check"
	// FactEtcdWatchProgress: etcd notifies watchers of its progress every 5 s.
	FactEtcdWatchProgress Fact = "etcd-watch-progress"
	// FactEtcdFeatureGates: the two above are no experimental flags any more, as
	// in etcd 3.6.
	FactEtcdFeatureGates Fact = "etcd-feature-gates"
	// FactEtcdTagDecides: the fact above holds only where the tag of etcd's image
	// says 3.6.0 or newer; see EtcdFeatureGates.
	FactEtcdTagDecides Fact = "etcd-tag-decides"
	// FactEtcdHealthQuery: etcd's probes ask /health with the queries
	// exclude=NOSPACE and serializable.
	FactEtcdHealthQuery Fact = "etcd-health-query"
	// FactEtcdLivez: etcd is probed at /livez and /readyz.
	FactEtcdLivez Fact = "etcd-livez"

	// The kubelet.

	// FactRemoteRuntimeFlag: the kubelet needs --container-runtime=remote for any
	// runtime but Docker.
	FactRemoteRuntimeFlag Fact = "remote-runtime-flag"
	// FactPauseFlag: kubeadm tells the kubelet the sandbox image by
	// --pod-infra-container-image, whatever the runtime is.
	FactPauseFlag Fact = "pause-flag"
	// FactCRISocketURL: the CRI socket is a URL (unix:///run/…) in flags,
	// configuration and the Node's annotation.
	FactCRISocketURL Fact = "cri-socket-url"
	// FactCRISocketAnnotation: kubeadm notes the CRI socket on the Node.
	FactCRISocketAnnotation Fact = "cri-socket-annotation"
	// FactCRISocketDropped: kubeadm's upgrade removes that note where
	// instance-config.yaml says the same.
	FactCRISocketDropped Fact = "cri-socket-dropped"
	// FactInstanceConfig: kubeadm tells the kubelet its container runtime's
	// socket in instance-config.yaml, which overrides config.yaml, and not by a flag.
	FactInstanceConfig Fact = "instance-config"
	// FactLocalAPIServer: a control plane's kubelet talks to the API server of its
	// own machine.
	FactLocalAPIServer Fact = "local-api-server"
	// FactDefaultCgroupDriver: kubeadm sets the kubelet's cgroupDriver, to
	// "systemd", where the user does not.
	FactDefaultCgroupDriver Fact = "default-cgroup-driver"
	// FactLocalResolvConf: resolvConf is set on each node and not in the
	// cluster's kubelet configuration.
	FactLocalResolvConf Fact = "local-resolv-conf"
	// FactFailCgroupV1: the kubelet refuses a machine with cgroup v1 unless its
	// configuration says failCgroupV1: false.
	FactFailCgroupV1 Fact = "fail-cgroup-v1"
	// FactDockerProbe: the kubelet looks for Docker for five seconds whenever it
	// starts, whatever its runtime is.
	FactDockerProbe Fact = "docker-probe"
	// FactSlowReady: the kubelet reports that it has become ready only when it
	// starts, and every ten seconds.
	FactSlowReady Fact = "slow-ready"

	// FactContainerd2: the node's container runtime is containerd 2, which tells
	// the kubelet its cgroup driver (CRI's RuntimeConfig), and not Debian's 1.7,
	// which older kubelets need for CRI v1alpha2.
	FactContainerd2 Fact = "containerd-2"

	// Identities.

	// FactSuperAdminConf: system:masters is in super-admin.conf alone; admin.conf
	// has the group kubeadm:cluster-admins, which a binding gives its rights.
	FactSuperAdminConf Fact = "super-admin-conf"
	// FactEtcdClientMasters: the clients' certificates of etcd name the
	// organization system:masters.
	FactEtcdClientMasters Fact = "etcd-client-masters"
	// FactECDSAGate: kubeadm's feature gate PublicKeysECDSA says of which kind keys
	// are, whatever encryptionAlgorithm says.
	FactECDSAGate Fact = "ecdsa-gate"
	// FactKubeconfigKeys: the keys in kubeconfigs, too, are of the kind that the
	// cluster's configuration names; before, they are RSA keys of 2048 bits.
	FactKubeconfigKeys Fact = "kubeconfig-keys"
	// FactLeafConstraints: a certificate that is no authority's says so.
	FactLeafConstraints Fact = "leaf-constraints"
	// FactAuthorityNames: an authority's certificate holds its common name as a DNS
	// name.
	FactAuthorityNames Fact = "authority-names"
	// FactAuthoritySerial: an authority's certificate has a random serial number,
	// not zero.
	FactAuthoritySerial Fact = "authority-serial"
	// FactBackdate: an authority's certificate is valid from five minutes before
	// it is made.
	FactBackdate Fact = "backdate"
	// FactOwnBeginning: so is every certificate, but those in kubeconfigs; before,
	// they begin when their authority's does.
	FactOwnBeginning Fact = "own-beginning"

	// Add-ons.

	// FactKubeDNSName: the Service kube-dns names itself KubeDNS, not CoreDNS, in
	// the label kubernetes.io/name.
	FactKubeDNSName Fact = "kube-dns-name"
	// FactCoreDNSOnMaster: CoreDNS tolerates the taint "master".
	FactCoreDNSOnMaster Fact = "coredns-on-master"
	// FactCoreDNSOnControlPlane: CoreDNS tolerates the taint "control-plane".
	FactCoreDNSOnControlPlane Fact = "coredns-on-control-plane"
	// FactCoreDNSEndpointSlices: CoreDNS may list EndpointSlices.
	FactCoreDNSEndpointSlices Fact = "coredns-endpointslices"
	// FactCoreDNSNodes: CoreDNS may read Nodes.
	FactCoreDNSNodes Fact = "coredns-nodes"
	// FactCoreDNSAntiAffinity: CoreDNS's pods prefer nodes that have none of them.
	FactCoreDNSAntiAffinity Fact = "coredns-anti-affinity"
	// FactCoreDNSDropsALL: CoreDNS drops the capabilities "ALL", as the Pod
	// Security Standards spell it, not "all".
	FactCoreDNSDropsALL Fact = "coredns-drops-ALL"
	// FactCoreDNSUncachedDomain: CoreDNS does not cache names of the cluster.
	FactCoreDNSUncachedDomain Fact = "coredns-uncached-domain"
	// FactCoreDNSProbePorts: CoreDNS's probes name their ports.
	FactCoreDNSProbePorts Fact = "coredns-probe-ports"
	// FactProxyCriticalToleration: kube-proxy tolerates CriticalAddonsOnly by name
	// besides everything.
	FactProxyCriticalToleration Fact = "proxy-critical-toleration"
)

// span is a range of versions in which a fact holds, both ends included: "1.22"
// as an end is all of its patches, and no end is every later version.
type span struct {
	Fact     Fact
	From, To string
}

// factSpans is read from each version's own kubeadm: below cmd/kubeadm/app, in
// the file that a comment names. What is marked "kubelet" is none of kubeadm's
// and was measured.
func factSpans() []span {
	return []span{
		{FactClusterStatus, "1.19", "1.21"},             // apis/kubeadm/types.go
		{FactHyperKube, "1.19", "1.21"},                 // images/images.go
		{FactVersionedKubeletConfig, "1.19", "1.23"},    // constants: GetKubeletConfigMapName; features: UnversionedKubeletConfigMap
		{FactAuthorizationModeInConfig, "1.19", "1.29"}, // phases/controlplane/manifests.go
		{FactDualStackGate, "1.19", "1.22"},             // phases/controlplane/manifests.go
		{FactDualStack, "1.21", ""},                     // features/features.go
		{FactIgnoreAll, "1.28", ""},                     // apis/kubeadm/validation/validation.go
		{FactECDSAP384, "1.34", ""},                     // apis/kubeadm/validation/validation.go
		{FactProxyMode, "1.37", ""},                     // componentconfigs/kubeproxy.go
		{FactNFTables, "1.31", ""},                      // kube-proxy: NFTablesProxyMode is on
		{FactUserspaceProxy, "1.19", "1.25"},            // kube-proxy
		{FactDNSFirst, "1.29", ""},                      // images/images.go
		{FactMemCheck, "1.20", ""},                      // preflight/checks.go

		{FactAPIServerInsecurePort, "1.19", "1.21"}, // phases/controlplane/manifests.go, also the next seven
		{FactInsecurePort, "1.19", "1.22"},
		{FactServiceAccountIssuer, "1.20", ""},
		{FactNodeCIDRMask, "1.19", "1.19"},
		{FactSchedulerReadyz, "1.32", ""},
		{FactProbePort, "1.34", ""},
		{FactFlexVolume, "1.19", "1.35"},     // phases/controlplane/volumes.go
		{FactCATrust, "1.31", ""},            // phases/controlplane/volumes.go
		{FactArgsAppended, "1.32", ""},       // util/arguments.go
		{FactSeccomp, "1.22", ""},            // util/staticpod/utils.go: ComponentPod
		{FactPodPriority, "1.25.12", "1.25"}, // util/staticpod/utils.go: ComponentPod
		{FactPodPriority, "1.26.7", ""},
		{FactPatchKubelet, "1.25", ""}, // util/patches/patches.go, also the next two
		{FactPatchCoreDNS, "1.31", ""},
		{FactPatchKubeProxy, "1.37", ""},

		{FactEtcdRequests, "1.20", ""}, // phases/etcd/local.go, also the next seven
		{FactEtcdCorruptCheck, "1.22.10", "1.22"},
		{FactEtcdCorruptCheck, "1.23.7", ""},
		{FactEtcdWatchProgress, "1.25", ""},
		{FactEtcdFeatureGates, "1.34", ""},
		{FactEtcdTagDecides, "1.34", "1.35"},
		{FactEtcdHealthQuery, "1.25", "1.30"},
		{FactEtcdLivez, "1.31", ""},

		{FactRemoteRuntimeFlag, "1.19", "1.25"},   // phases/kubelet/flags.go
		{FactPauseFlag, "1.21", "1.34"},           // phases/kubelet/flags.go
		{FactCRISocketURL, "1.24", ""},            // constants: DefaultContainerRuntimeURLScheme
		{FactCRISocketAnnotation, "1.19", "1.33"}, // phases/patchnode; features: NodeLocalCRISocket
		{FactCRISocketDropped, "1.33", "1.36"},    // cmd/phases/upgrade/apply/uploadconfig.go
		{FactInstanceConfig, "1.34", ""},          // phases/kubelet/config.go; features: NodeLocalCRISocket
		{FactLocalAPIServer, "1.33", ""},          // phases/kubeconfig/kubeconfig.go; features: ControlPlaneKubeletLocalMode
		{FactDefaultCgroupDriver, "1.21", ""},     // componentconfigs/kubelet.go
		{FactLocalResolvConf, "1.31", ""},         // componentconfigs/kubelet_unix.go: Mutate
		{FactFailCgroupV1, "1.35", ""},            // kubelet: pkg/kubelet/apis/config/v1beta1/defaults.go
		{FactDockerProbe, "1.19", "1.20"},         // kubelet
		{FactSlowReady, "1.19", "1.20"},           // kubelet
		{FactContainerd2, "1.36", ""},             // containerd's RELEASES.md: Kubernetes Support

		{FactSuperAdminConf, "1.29", ""},        // phases/kubeconfig/kubeconfig.go
		{FactEtcdClientMasters, "1.19", "1.28"}, // phases/certs/certlist.go
		{FactECDSAGate, "1.19", "1.36"},         // features/features.go
		{FactKubeconfigKeys, "1.31", ""},        // phases/kubeconfig/kubeconfig.go
		{FactLeafConstraints, "1.21", ""},       // util/pkiutil/pki_helpers.go: NewSignedCert
		{FactAuthorityNames, "1.22", ""},        // k8s.io/client-go/util/cert: NewSelfSignedCACert, also the next
		{FactAuthoritySerial, "1.25", ""},
		{FactBackdate, "1.25", ""},     // util/pkiutil/pki_helpers.go: NewCertificateAuthority
		{FactOwnBeginning, "1.31", ""}, // phases/certs/certlist.go: GetConfig

		{FactKubeDNSName, "1.19", "1.20"}, // phases/addons/dns/manifests.go, also the next eight
		{FactCoreDNSOnMaster, "1.19", "1.25"},
		{FactCoreDNSOnControlPlane, "1.20", ""},
		{FactCoreDNSEndpointSlices, "1.22", ""},
		{FactCoreDNSNodes, "1.19", "1.27"},
		{FactCoreDNSAntiAffinity, "1.25", ""},
		{FactCoreDNSDropsALL, "1.29", ""},
		{FactCoreDNSUncachedDomain, "1.32", ""},
		{FactCoreDNSProbePorts, "1.34", ""},
		{FactProxyCriticalToleration, "1.19", "1.21"}, // phases/addons/proxy/manifests.go
	}
}

// factsOf are the facts that hold in version v.
func factsOf(v version) map[string]bool {
	facts := map[string]bool{}
	for _, s := range factSpans() {
		if v.within(s.From, s.To) {
			facts[string(s.Fact)] = true
		}
	}
	return facts
}

// within says whether v is one of the versions from one to another, as a span
// has them.
func (v version) within(from, to string) bool {
	if v.less(readVersion(from)) {
		return false
	}
	if to == "" {
		return true
	}
	end := readVersion(to)
	return v.minor < end.minor || v.minor == end.minor && (end.patch < 0 || v.patch <= end.patch)
}

// Has says whether a yes-or-no fact holds for the release.
func (r Release) Has(f Fact) bool { return r.Facts[string(f)] }
