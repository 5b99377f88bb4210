package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// Dir is a cluster's directory. A secret is read, and a passphrase asked for,
// only when it is needed.
type Dir struct {
	// Node is the first control plane that the configuration makes, on a
	// placeholder machine: only its cluster-wide settings are meaningful.
	Node *config.Node
	// Release is the version that the configuration names, or else a
	// placeholder that can read it.
	Release images.Release

	path   string
	root   *os.Root
	config []byte // cluster.yaml
	keys   func() ([]age.Identity, error)
	opened []age.Identity
}

// Open opens a directory that Create made. identityFile is an age identity
// file for one that is encrypted; without it, the passphrase of the directory's
// own is asked for. Close it.
func Open(path, identityFile string, ask Ask) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the cluster's directory: %w; `kbuild cluster new` creates one", err)
	}
	d := &Dir{path: path, root: root}
	d.keys = func() ([]age.Identity, error) { return d.findKeys(identityFile, ask) }
	if err := d.readConfig(); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) Close() error { return d.root.Close() }

func (d *Dir) readConfig() error {
	name := filepath.Join(d.path, configFile)
	b, err := d.root.ReadFile(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot use %s: it is not a cluster's directory: it has no %s; `kbuild cluster new` creates one", d.path, configFile)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	d.config = b
	doc := config.Document{Source: name, Data: b}
	if d.Release, err = release(doc); err != nil {
		return err
	}
	if d.Node, err = Load(doc); err != nil {
		return err
	}
	if d.Node.Cluster.ControlPlaneEndpoint == "" {
		return fmt.Errorf("cannot use %s: it has no controlPlaneEndpoint: set it to the address of the cluster's API, HOST:PORT", name)
	}
	return nil
}

// Name is the cluster's name in kubeconfigs.
func (d *Dir) Name() string { return d.Node.Cluster.ClusterName }

// Endpoint is where the cluster's API is reached, HOST:PORT.
func (d *Dir) Endpoint() string { return d.Node.Cluster.ControlPlaneEndpoint }

// Pins are kubeadm's pins of the cluster's authority.
func (d *Dir) Pins() ([]string, error) {
	b, err := d.PKI(pki.CA + ".crt")
	if err != nil {
		return nil, err
	}
	pins, err := pki.Pins(b)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", filepath.Join(d.path, pkiDir, pki.CA+".crt"), err)
	}
	return pins, nil
}

// PKI reads a file of the PKI by its path below the certificates directory.
func (d *Dir) PKI(name string) ([]byte, error) { return d.read(pkiDir+"/"+name, !public(name)) }

// secret reads a file that holds one secret.
func (d *Dir) secret(name string) (config.Secret, error) {
	b, err := d.read(name, true)
	return config.Secret(strings.TrimSpace(string(b))), err
}

// read reads a file of the directory, and decrypts it where it is encrypted.
func (d *Dir) read(name string, secret bool) ([]byte, error) {
	file := filepath.Join(d.path, name)
	b, err := d.root.ReadFile(name)
	if err == nil {
		return b, nil
	}
	if !secret || !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	b, sealedErr := d.root.ReadFile(name + ageSuffix)
	if errors.Is(sealedErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: %w, nor is %s%s", file, err, filepath.Base(name), ageSuffix)
	}
	if sealedErr != nil {
		return nil, fmt.Errorf("cannot read %s%s: %w", file, ageSuffix, sealedErr)
	}
	if d.opened == nil {
		if d.opened, err = d.keys(); err != nil {
			return nil, err
		}
	}
	plain, err := decrypt(b, d.opened...)
	if _, no := errors.AsType[*age.NoIdentityMatchError](err); no {
		return nil, fmt.Errorf("cannot open %s%s: it is not encrypted to the given key, but to those in %s", file, ageSuffix, filepath.Join(d.path, recipientsFile))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s%s: %w: it is damaged", file, ageSuffix, err)
	}
	return plain, nil
}

// findKeys finds what opens the secrets.
func (d *Dir) findKeys(identityFile string, ask Ask) ([]age.Identity, error) {
	if identityFile != "" {
		b, err := os.ReadFile(identityFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the age identity file: %w", err)
		}
		return Keys(identityFile, b, ask)
	}
	b, err := d.root.ReadFile(passphraseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open the secrets of %s: they are encrypted: give --identity FILE, the age identity file of one of the recipients in %s", d.path, filepath.Join(d.path, recipientsFile))
	}
	name := filepath.Join(d.path, passphraseFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return Keys(name, b, ask)
}

// names are the files of the PKI that a cluster like this one has.
func (d *Dir) names() ([]string, error) {
	table, err := pki.Table(d.Node, d.Release)
	if err != nil {
		return nil, err
	}
	names := []string{pki.SAKey, pki.SAPub}
	for _, c := range table {
		if c.CA == "" {
			names = append(names, c.CrtPath(""), c.KeyPath(""))
		}
	}
	return names, nil
}
