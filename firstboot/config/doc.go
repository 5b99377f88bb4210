// Package config holds the kinds that a node reads: kubeadm's own kinds and
// the short NodeMetadata. Reading is strict, then what is missing is
// defaulted, then the whole is validated; Node is the outcome. Load does it
// all.
//
// # What is read
//
// Configuration is one or more YAML documents of these kinds, each at most
// once:
//
//	kbuild.dev/v1alpha1                NodeMetadata
//	kubeadm.k8s.io/v1beta2             InitConfiguration, ClusterConfiguration, JoinConfiguration
//	kubelet.config.k8s.io/v1beta1      KubeletConfiguration
//	kubeproxy.config.k8s.io/v1alpha1   KubeProxyConfiguration
//
// The fields of Kubernetes' kinds are those of the image's own version
// (package schema). The image may have a configuration baked in; user-data is
// laid over it, field by field, lists as a whole. A NodeMetadata is spread over
// the other kinds of the same source; what it says they must not say too. It
// also says what kubeadm takes as flags.
//
// Examples are in testdata/examples.
//
// # NodeMetadata
//
//	role                   text
//	    what the node is to its cluster: `init` (first control plane),
//	    `control-plane` or `worker`
//	name                   text
//	    the node's name, also set as host name; default: the host name,
//	    else derived from the machine ID
//	address                text
//	    the node's own address: advertiseAddress and the kubelet's
//	    node-ip
//	advertiseAddress       text
//	    where this node's API server is reached; default: the address of
//	    the interface with the default route, else the one usable address
//	bindPort               number
//	    port of this node's API server; default 6443
//	endpoint               text
//	    stable name or address of the whole control plane, with or
//	    without port; on an init node it goes into certificates and
//	    kubeconfigs, on others it is where the cluster is found
//	token                  text
//	    bootstrap token, `abcdef.0123456789abcdef`; default on an init
//	    node: a random one
//	tokenTTL               duration
//	    how long the token lives; default 24h, 0s is for ever
//	caCertHashes           list of text
//	    joining only: pins of the cluster's CA, `sha256:HEX`
//	unsafeSkipCAVerification true or false
//	    joining only: join without a pin; whoever holds the token can
//	    then pretend to be the cluster
//	discoveryFile          text
//	    joining only: path or https URL of a kubeconfig that names the
//	    cluster, instead of endpoint and caCertHashes
//	certificateKey         text
//	    64 hexadecimal digits that encrypt the uploaded control-plane
//	    certificates; on an init node it asks for uploadCerts
//	uploadCerts            true or false
//	    upload the control plane's certificates for other control planes,
//	    encrypted (kubeadm init --upload-certs)
//	pki                    map of text
//	    identity of a cluster that was made beforehand: PEM by file below
//	    the certificates directory (`ca.crt`, `ca.key`, `etcd/ca.crt`,
//	    `sa.key`, …)
//	podSubnet              text
//	    addresses of pods; default: what the image's pod network uses
//	    (flannel: 10.244.0.0/16)
//	serviceSubnet          text
//	    addresses of services; default 10.96.0.0/12
//	dnsDomain              text
//	    DNS domain of services; default cluster.local
//	clusterName            text
//	    name of the cluster in kubeconfigs; default kubernetes
//	kubernetesVersion      text
//	    must be the image's version if given
//	imageRepository        text
//	    registry in the names of the control plane's images; the image
//	    must hold them under these names
//	apiServerCertSANs      list of text
//	    further names and addresses in the API server's certificate
//	featureGates           map of true or false
//	    kubeadm's own feature gates
//	kubeletExtraArgs       map of text
//	    flags of the kubelet, without leading dashes
//	labels                 map of text
//	    labels that the kubelet registers the node with
//	taints                 list of taints
//	    taints of the node; default: the role's, `[]` for none
//	patches                text
//	    absolute path of a directory with patches for static pods
//	    (kubeadm init --experimental-patches)
//	skipPhases             list of text
//	    steps that do not run (kubeadm init --skip-phases), e.g.
//	    `addon/kube-proxy`
//	ignorePreflightErrors  list of text
//	    preflight checks whose errors only warn, e.g. `NumCPU`
package config
