// Package identity is a cluster's identity, created before its first node:
// its certificate authorities, the key pair that signs service-account tokens, a
// bootstrap token, the certificate key, and the cluster's configuration. It
// lives in a directory of the operator's, which says what to give each
// machine, so that all of them can be powered on at once and in any order.
//
// # The directory
//
//	cluster.yaml          kubeadm's ClusterConfiguration, and optionally
//	                      KubeletConfiguration and KubeProxyConfiguration
//	pki/ca.crt …          the authorities, named as in /etc/kubernetes/pki
//	pki/ca.key …          their keys, secret
//	token                 secret
//	certificate-key       secret
//
// Secret files have mode 0600 and the directories 0700. A directory that is
// encrypted holds each secret file as NAME.age instead, besides recipients.txt
// with the keys that it is encrypted to and, where it is opened with a
// passphrase, identity.age. All of it is in age's own format: `age -d` decrypts
// it without kbuild.
//
// A directory appears whole or not at all, and is never written over.
package identity

import (
	"maps"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// Files of the directory.
const (
	configFile     = "cluster.yaml"
	pkiDir         = "pki"
	tokenFile      = "token"
	keyFile        = "certificate-key"
	recipientsFile = "recipients.txt"
	passphraseFile = "identity.age"
	ageSuffix      = ".age"
)

// Identity is a cluster's identity as it is made.
type Identity struct {
	// Config is cluster.yaml.
	Config []byte
	// Endpoint is where the cluster's API is reached, HOST:PORT.
	Endpoint string
	// PKI holds PEM by the path below the certificates directory: "etcd/ca.key".
	PKI            map[string][]byte
	Token          config.Secret
	CertificateKey config.Secret
}

// file is one file of the directory.
type file struct {
	name   string // below the directory
	data   []byte
	secret bool
}

// files are those of an identity that is not encrypted, in a fixed order.
func (id *Identity) files() []file {
	files := []file{{configFile, id.Config, false}}
	for _, name := range slices.Sorted(maps.Keys(id.PKI)) {
		files = append(files, file{pkiDir + "/" + name, id.PKI[name], !public(name)})
	}
	return append(files,
		file{tokenFile, []byte(id.Token.Reveal() + "\n"), true},
		file{keyFile, []byte(id.CertificateKey.Reveal() + "\n"), true})
}

// public says whether a file of the PKI holds no secret.
func public(name string) bool {
	return strings.HasSuffix(name, ".crt") || strings.HasSuffix(name, ".pub")
}
