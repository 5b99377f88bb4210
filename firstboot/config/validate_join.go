package config

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// pinForm is a pin as kubeadm writes it: the SHA-256 of an authority's subject
// public key info (RFC 7469).
var pinForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

const joinRemedy = "`kbuild token create --print-join-userdata` or `kubeadm token create --print-join-command` on the cluster prints endpoint, token and pin"

func (v *validator) join() {
	j := v.node.Join
	const at = "join.discovery"
	d := j.Discovery
	switch {
	case v.node.Scrubbed: // it has served
	case d.BootstrapToken == nil && d.File == nil:
		v.missing(at, "nothing says where the cluster is and how it is known", "give endpoint, token and caCertHashes, or a discoveryFile; "+joinRemedy)
	case d.BootstrapToken != nil && d.File != nil:
		v.bad(at, "bootstrapToken and file exclude each other", "keep one of the two")
	case d.File != nil:
		v.discoveryFile(at+".file.kubeConfigPath", d.File.KubeConfigPath)
	default:
		v.discoveryToken(at+".bootstrapToken", d.BootstrapToken)
	}
	if t := d.TLSBootstrapToken; t != "" && (d.BootstrapToken == nil || t != d.BootstrapToken.Token) {
		v.joinToken(at+".tlsBootstrapToken", t)
	}
	if !path.IsAbs(j.CACertPath) || !strings.HasSuffix(j.CACertPath, ".crt") {
		v.bad("join.caCertPath", fmt.Sprintf("%q is no absolute path of a .crt file", printable(j.CACertPath)), "leave it out for "+defaultCACertPath)
	}
}

// missing is bad for a value that is nowhere: it points at what makes the node
// one that needs it.
func (v *validator) missing(path, what, remedy string) {
	v.probs.add(Problem{Source: v.node.Sources["role"], Field: fieldName(path, v.node.Role), What: what, Remedy: remedy, Missing: true})
}

func (v *validator) discoveryToken(at string, t *BootstrapTokenDiscovery) {
	v.joinToken(at+".token", t.Token)
	if t.APIServerEndpoint == "" {
		v.missing(at+".apiServerEndpoint", "nothing says where the cluster's API server is", "write its host and port (endpoint in NodeMetadata); "+joinRemedy)
	} else if _, _, err := parseHostPort(t.APIServerEndpoint); err != nil {
		v.bad(at+".apiServerEndpoint", err.Error(), "write the API server's host and port, such as api.example.org:6443 or [fd00::1]:6443")
	}
	for i, pin := range t.CACertHashes {
		if !pinForm.MatchString(pin) {
			v.bad(fmt.Sprintf("%s.caCertHashes[%d]", at, i), "it is not sha256: and 64 hexadecimal digits", joinRemedy)
		}
	}
	switch {
	case len(t.CACertHashes) == 0 && !t.UnsafeSkipCAVerification:
		v.missing(at+".caCertHashes", "without a pin of the cluster's CA, whoever holds the token can pretend to be the cluster", "give the pin; or say `unsafeSkipCAVerification: true` to take that risk. "+joinRemedy)
	case len(t.CACertHashes) == 0:
		v.warn("unsafeSkipCAVerification: this node takes whoever answers at %s and signs with the token for its cluster; give caCertHashes to be sure", t.APIServerEndpoint)
	}
}

func (v *validator) joinToken(at string, t Secret) {
	switch {
	case t == "":
		v.missing(at, "the bootstrap token is missing", "give a token that the cluster knows; "+joinRemedy)
	case !tokenForm.MatchString(t.Reveal()):
		v.bad(at, "it has not the form of a bootstrap token", "write six and sixteen lower-case letters or digits, as in abcdef.0123456789abcdef; "+joinRemedy)
	}
}

func (v *validator) discoveryFile(at, file string) {
	u, err := url.Parse(file)
	switch {
	case err != nil:
		v.bad(at, fmt.Sprintf("%q is neither a path nor a URL", printable(file)), "write an absolute path, or a URL that begins with https://")
	case u.Scheme == "" && !path.IsAbs(file):
		v.bad(at, fmt.Sprintf("%q is not an absolute path", printable(file)), "begin it with /, or with https://")
	case u.Scheme != "" && (u.Scheme != "https" || u.Host == ""):
		v.bad(at, fmt.Sprintf("%q cannot be trusted to say what the cluster is", printable(file)), "write a URL that begins with https://")
	}
}
