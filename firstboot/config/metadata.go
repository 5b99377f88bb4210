package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
)

// field is one field of NodeMetadata: the short way to say what kubeadm's
// kinds say at length.
type field struct {
	name  string
	typ   string // as in package schema
	roles string // that it is for: i(nit), c(ontrol-plane), w(orker)
	to    string // where it goes, as in Node.Sources; empty: see settings
	doc   string // for the table in doc.go
}

func nodeMetadata() []field {
	return []field{
		{"role", "string", "icw", "", "what the node is to its cluster: `init` (first control plane), `control-plane` or `worker`"},
		{"name", "string", "icw", "init.nodeRegistration.name", "the node's name, also set as host name; default: the host name, else derived from the machine ID"},
		{"address", "string", "icw", "", "the node's own address: advertiseAddress and the kubelet's node-ip"},
		{"advertiseAddress", "string", "ic", "init.localAPIEndpoint.advertiseAddress", "where this node's API server is reached; default: the address of the interface with the default route, else the one usable address"},
		{"bindPort", "int32", "ic", "init.localAPIEndpoint.bindPort", "port of this node's API server; default 6443"},
		{"endpoint", "string", "icw", "", "stable name or address of the whole control plane, with or without port; on an init node it goes into certificates and kubeconfigs, on others it is where the cluster is found"},
		{"token", "string", "icw", "", "bootstrap token, `abcdef.0123456789abcdef`; default on an init node: a random one"},
		{"tokenTTL", "*duration", "i", "init.bootstrapTokens[0].ttl", "how long the token lives; default 24h, 0s is for ever"},
		{"caCertHashes", "[]string", "cw", "join.discovery.bootstrapToken.caCertHashes", "joining only: pins of the cluster's CA, `sha256:HEX`"},
		{"unsafeSkipCAVerification", "bool", "cw", "join.discovery.bootstrapToken.unsafeSkipCAVerification", "joining only: join without a pin; whoever holds the token can then pretend to be the cluster"},
		{"discoveryFile", "string", "cw", "join.discovery.file.kubeConfigPath", "joining only: path or https URL of a kubeconfig that names the cluster, instead of endpoint and caCertHashes"},
		{"certificateKey", "string", "ic", "init.certificateKey", "64 hexadecimal digits that encrypt the uploaded control-plane certificates; on an init node it asks for uploadCerts"},
		{"uploadCerts", "bool", "i", "init.uploadCerts", "upload the control plane's certificates for other control planes, encrypted (kubeadm init --upload-certs)"},
		{"pki", "map string", "i", "init.pki", "identity of a cluster that was made beforehand: PEM by file below the certificates directory (`ca.crt`, `ca.key`, `etcd/ca.crt`, `sa.key`, …)"},
		{"podSubnet", "string", "i", "cluster.networking.podSubnet", "addresses of pods; default: what the image's pod network uses (flannel: 10.244.0.0/16)"},
		{"serviceSubnet", "string", "i", "cluster.networking.serviceSubnet", "addresses of services; default 10.96.0.0/12"},
		{"dnsDomain", "string", "i", "cluster.networking.dnsDomain", "DNS domain of services; default cluster.local"},
		{"clusterName", "string", "i", "cluster.clusterName", "name of the cluster in kubeconfigs; default kubernetes"},
		{"kubernetesVersion", "string", "icw", "cluster.kubernetesVersion", "must be the image's version if given"},
		{"imageRepository", "string", "i", "cluster.imageRepository", "registry in the names of the control plane's images; the image must hold them under these names"},
		{"apiServerCertSANs", "[]string", "i", "cluster.apiServer.certSANs", "further names and addresses in the API server's certificate"},
		{"featureGates", "map bool", "i", "cluster.featureGates", "kubeadm's own feature gates"},
		{"kubeletExtraArgs", "map string", "icw", "init.nodeRegistration.kubeletExtraArgs", "flags of the kubelet, without leading dashes"},
		{"labels", "map string", "icw", "", "labels that the kubelet registers the node with"},
		{"taints", "[]$v1.Taint", "icw", "init.nodeRegistration.taints", "taints of the node; default: the role's, `[]` for none"},
		{"patches", "string", "ic", "init.patches", "absolute path of a directory with patches for static pods (kubeadm init --experimental-patches)"},
		{"skipPhases", "[]string", "icw", "init.skipPhases", "steps that do not run (kubeadm init --skip-phases), e.g. `addon/kube-proxy`"},
		{"ignorePreflightErrors", "[]string", "icw", "init.nodeRegistration.ignorePreflightErrors", "preflight checks whose errors only warn, e.g. `NumCPU`"},
	}
}

// isFor says whether the field means something to a node of role.
func (f field) isFor(role Role) bool {
	letter := map[Role]string{RoleInit: "i", RoleControlPlane: "c", RoleWorker: "w"}[role]
	return strings.Contains(f.roles, letter)
}

// nodeMetadataFields are the fields of NodeMetadata, in the shape of a
// schema's type.
func nodeMetadataFields(*schema.Schema) map[string]string {
	m := map[string]string{}
	for _, f := range nodeMetadata() {
		m[f.name] = f.typ
	}
	return m
}

// MetadataTable is the table of NodeMetadata's fields as Markdown, for
// docs/user-data.md.
func MetadataTable() string {
	var b strings.Builder
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for _, f := range nodeMetadata() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.name, typeForPeople(f.typ), f.doc)
	}
	return b.String()
}

func typeForPeople(t string) string {
	switch t {
	case "string":
		return "text"
	case "int32":
		return "number"
	case "bool":
		return "true or false"
	case "*duration":
		return "duration"
	case "[]string":
		return "list of text"
	case "map string":
		return "map of text"
	case "map bool":
		return "map of true or false"
	}
	return "list of taints"
}

// setting is one value of a NodeMetadata at the place where it goes.
type setting struct {
	to    string // "cluster.networking.podSubnet"
	from  string // NodeMetadata's field
	value any
}

// settings spreads a NodeMetadata over kubeadm's kinds.
func settings(o object, role Role) []setting {
	var out []setting
	put := func(to, from string, v any) { out = append(out, setting{to, from, v}) }
	for _, f := range nodeMetadata() {
		v, ok := o.value[f.name]
		if !ok {
			continue
		}
		if f.to != "" {
			put(f.to, f.name, v)
		}
		switch f.name {
		case "address":
			if _, other := o.value["advertiseAddress"]; !other {
				put("init.localAPIEndpoint.advertiseAddress", f.name, v)
			}
			put("init.nodeRegistration.kubeletExtraArgs.node-ip", f.name, v)
		case "certificateKey":
			if _, other := o.value["uploadCerts"]; !other && !role.Joins() {
				put("init.uploadCerts", f.name, true)
			}
		case "endpoint":
			if role.Joins() {
				put("join.discovery.bootstrapToken.apiServerEndpoint", f.name, v)
			} else {
				put("cluster.controlPlaneEndpoint", f.name, v)
			}
		case "token":
			put(tokenPlace(o, role), f.name, v)
		case "labels":
			labels := v.(map[string]any)
			var kv []string
			for _, k := range slices.Sorted(maps.Keys(labels)) {
				kv = append(kv, fmt.Sprintf("%s=%v", k, labels[k]))
			}
			put("init.nodeRegistration.kubeletExtraArgs.node-labels", f.name, strings.Join(kv, ","))
		}
	}
	return out
}

// tokenPlace is where a NodeMetadata's token goes. Beside a discovery file it
// is not what the cluster is known by, but what the node shows to it.
func tokenPlace(o object, role Role) string {
	_, file := o.value["discoveryFile"]
	switch {
	case !role.Joins():
		return "init.bootstrapTokens[0].token"
	case file:
		return "join.discovery.tlsBootstrapToken"
	}
	return "join.discovery.bootstrapToken.token"
}
