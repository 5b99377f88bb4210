package identity

import (
	"bytes"
	"fmt"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kbuild/kbuild/firstboot/config"
)

// maxName is the longest host name that Linux allows (HOST_NAME_MAX).
const maxName = 64

// Metadata is a NodeMetadata as user-data has it: the fields that make a node
// one of its cluster. (firstboot/config reads it.)
type Metadata struct {
	APIVersion     string                   `yaml:"apiVersion"`
	Kind           string                   `yaml:"kind"`
	Role           config.Role              `yaml:"role"`
	Name           string                   `yaml:"name,omitempty"`
	Endpoint       string                   `yaml:"endpoint,omitempty"`
	Token          config.Secret            `yaml:"token"`
	TokenTTL       string                   `yaml:"tokenTTL,omitempty"`
	CACertHashes   []string                 `yaml:"caCertHashes,omitempty"`
	CertificateKey config.Secret            `yaml:"certificateKey,omitempty"`
	UploadCerts    bool                     `yaml:"uploadCerts,omitempty"`
	PKI            map[string]config.Secret `yaml:"pki,omitempty"`
}

// Marshal writes it as YAML.
func (m Metadata) Marshal() ([]byte, error) {
	m.APIVersion, m.Kind = "kbuild.dev/v1alpha1", "NodeMetadata"
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("cannot write the user-data: %w", err)
	}
	return b.Bytes(), e.Close()
}

// UserData is what to give a machine: YAML documents. name is the node's name;
// it may be empty. ttl is how long the bootstrap token is valid after the first
// control plane has created it, zero for ever; it is in that node's user-data
// alone. A wrong role or name is a SpecError.
func (d *Dir) UserData(role config.Role, name string, ttl time.Duration) ([]byte, error) {
	if err := checkNode(role, name); err != nil {
		return nil, SpecError{err}
	}
	m := Metadata{Role: role, Name: name}
	var err error
	if m.Token, err = d.secret(tokenFile); err != nil {
		return nil, err
	}
	if role != config.RoleWorker {
		if m.CertificateKey, err = d.secret(keyFile); err != nil {
			return nil, err
		}
	}
	if role == config.RoleInit {
		return d.initData(m, ttl)
	}
	m.Endpoint = d.Endpoint()
	if m.CACertHashes, err = d.Pins(); err != nil {
		return nil, err
	}
	return m.Marshal()
}

func checkNode(role config.Role, name string) error {
	switch role {
	case config.RoleInit, config.RoleControlPlane, config.RoleWorker:
	default:
		return fmt.Errorf("%q is not a role: use init for the first machine, control-plane or worker for the others", role)
	}
	if name != "" && (len(name) > maxName || len(validation.IsDNS1123Subdomain(name)) > 0) {
		return fmt.Errorf("%q is not a valid node name: use lower-case letters, digits, '-' and '.', a letter or digit first and last, at most %d", name, maxName)
	}
	return nil
}

// initData is the user-data of the first control plane.
func (d *Dir) initData(m Metadata, ttl time.Duration) ([]byte, error) {
	m.TokenTTL, m.UploadCerts = ttl.String(), true
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	m.PKI = map[string]config.Secret{}
	for _, name := range names {
		b, err := d.PKI(name)
		if err != nil {
			return nil, err
		}
		m.PKI[name] = config.Secret(b)
	}
	b, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	return append(append(b, "---\n"...), d.config...), nil
}
