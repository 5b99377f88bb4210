package config

import "fmt"

// What `kubeadm config print init-defaults` and `join-defaults` print for
// people to replace (cmd/kubeadm/app/cmd/config.go and
// cmd/kubeadm/app/util/config).
const (
	placeholderAddress  = "1.2.3.4"
	placeholderName     = "node"
	placeholderEndpoint = "kube-apiserver:6443"
	placeholderToken    = "abcdef.0123456789abcdef"
)

// placeholders are the values in n that kubeadm prints as examples. Names and
// tokens that someone may have chosen count only beside the address or endpoint
// that nobody has.
func placeholders(n *Node) Problems {
	v := &validator{node: n}
	bad := func(path, what, remedy string) {
		v.bad(path, what+" is the placeholder that `kubeadm config print` writes", remedy)
	}
	given := func(path string) bool { return n.Sources[path] != "" }
	if ep := n.Init.LocalAPIEndpoint.AdvertiseAddress; ep == placeholderAddress && given("init.localAPIEndpoint.advertiseAddress") {
		bad("init.localAPIEndpoint.advertiseAddress", ep, "write an address of this machine, or remove the line to have it chosen")
		if n.Init.NodeRegistration.Name == placeholderName {
			bad("init.nodeRegistration.name", fmt.Sprintf("%q", placeholderName), "write this node's name, or remove the line for the host name")
		}
		for i, t := range n.Init.BootstrapTokens {
			if t.Token.Reveal() == placeholderToken {
				bad(fmt.Sprintf("init.bootstrapTokens[%d].token", i), "this token, which everybody knows,", "write one that `kbuild token generate` makes, or remove the line for a random one")
			}
		}
	}
	t := n.Join.Discovery.BootstrapToken
	if t == nil || t.APIServerEndpoint != placeholderEndpoint {
		return v.probs
	}
	const at = "join.discovery.bootstrapToken."
	if t.Token.Reveal() == placeholderToken {
		bad(at+"apiServerEndpoint", placeholderEndpoint, "write the API server's host and port; "+joinRemedy)
		bad(at+"token", "this token, which everybody knows,", "write the cluster's; "+joinRemedy)
		if t.UnsafeSkipCAVerification && len(t.CACertHashes) == 0 {
			bad(at+"unsafeSkipCAVerification", "true", "give caCertHashes instead; "+joinRemedy)
		}
	}
	return v.probs
}
