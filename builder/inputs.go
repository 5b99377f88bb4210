package builder

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/ignition"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// Inputs are what a Plan refers to and does not hold, since some of it is
// secret.
type Inputs struct {
	content    map[string][]byte  // of kbuild's and the user's files, by "sha256:HEX"
	sign       ed25519.PrivateKey // of the update; nil for none
	secureBoot *disk.SecureBoot   // files with the identity of boot loader and kernel; nil for none
	lock       []base.Package     // what the base must hold; nil for any packages
}

// digest is how a Plan refers to bytes.
func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// files is what the files that a Spec names hold.
type files struct {
	want      source.Want
	config    []byte            // kubeadm kinds to bake; nil for none
	manifests map[string][]byte // by file name
	checks    map[string][]byte // by file name
	merge     []byte            // the user's Ignition config, made of Spec.Butane; nil for none
	keys      []string          // the public keys (PEM) that updates are checked with; that of Spec.SignKey is the first
	cert      []byte            // the chain that verifies boot loader and kernel, DER; nil for none
	inputs    *Inputs
}

// readFiles reads and checks the files that s names.
func readFiles(s Spec, rel images.Release) (*files, error) {
	f := &files{
		want:      source.Want{Release: rel, Arch: s.Arch, CNI: s.CNI, Config: images.ListConfig{ImageRepository: s.Registry}},
		manifests: map[string][]byte{}, checks: map[string][]byte{},
		inputs: &Inputs{content: map[string][]byte{}},
	}
	for _, read := range []func(Spec) error{f.readConfig, f.readManifests, f.readButane, f.readChecks, f.readKeys, f.readLock} {
		if err := read(s); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// byContent is s with, for each file that it names, the digest of what is in
// it. Of keys it has the public half.
func (f *files) byContent(s Spec) Spec {
	s.Out, s.Lock = "", ""
	s.Source, _, _ = strings.Cut(s.Source, ":")
	if s.Config != "" {
		s.Config = digest(f.config)
	}
	if s.Butane != "" {
		s.Butane = digest(f.merge)
	}
	s.Manifests, s.Checks = slices.Clone(s.Manifests), slices.Clone(s.Checks)
	for list, data := range map[*[]string]map[string][]byte{&s.Manifests: f.manifests, &s.Checks: f.checks} {
		for i, file := range *list {
			name := filepath.Base(file)
			(*list)[i] = name + " " + digest(data[name])
		}
	}
	s.UpdateKeys = f.keys
	if s.SignKey != "" {
		s.SignKey = digest([]byte(f.keys[0]))
	}
	if s.SecureBootCert != "" {
		s.SecureBootKey, s.SecureBootCert = "", digest(f.cert)
	}
	return s
}

// readConfig reads and checks the kubeadm kinds to bake, and takes from them
// what the image list depends on.
func (f *files) readConfig(s Spec) error {
	var err error
	if f.want.Images, err = source.FullNames(s.Include); err != nil {
		return fmt.Errorf("cannot use --include-image: %w", err)
	}
	if s.Config == "" {
		return nil
	}
	data, err := os.ReadFile(s.Config)
	if err != nil {
		return fmt.Errorf("cannot read --config: %w", err)
	}
	cluster, err := config.ReadBaked(images.Baked{Release: f.want.Release, CNI: s.CNI, PodCIDR: podCIDR(s.CNI), ImageRepository: s.Registry}, config.Document{Source: s.Config, Data: data})
	if err != nil {
		return err
	}
	if s.Registry != "" && cluster.ImageRepository != "" && cluster.ImageRepository != s.Registry {
		return fmt.Errorf("--image-repository is %s, but %s says imageRepository: %s: remove one of them", s.Registry, s.Config, cluster.ImageRepository)
	}
	f.want.Config = cluster.ImageList()
	f.want.Config.KubernetesVersion = ""
	if s.Registry != "" {
		f.want.Config.ImageRepository = s.Registry
	}
	f.config = data
	return nil
}

// readManifests reads the manifests to bake and adds the images they name.
func (f *files) readManifests(s Spec) error {
	for _, file := range s.Manifests {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cannot read --manifest: %w", err)
		}
		refs, err := manifestImages(file, data)
		if err != nil {
			return err
		}
		f.manifests[filepath.Base(file)] = data
		full, err := source.FullNames(refs)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		f.want.Images = append(f.want.Images, full...)
	}
	slices.Sort(f.want.Images)
	f.want.Images = slices.Compact(f.want.Images)
	return nil
}

// readButane translates the user's Butane config, and makes sure that ours can
// be made for the address, so that errors are found before anything is built.
func (f *files) readButane(s Spec) error {
	if !s.has(ignitionFormat) {
		return nil
	}
	if file := s.Butane; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cannot read --butane: %w", err)
		}
		if f.merge, err = ignition.Translate(data, filepath.Dir(file)); err != nil {
			return fmt.Errorf("cannot use --butane %s: %w", file, err)
		}
		f.inputs.content[digest(f.merge)] = f.merge
	}
	zero := strings.Repeat("0", 64)
	_, err := ignition.Make(templates.ButaneParams{URL: s.SysextURL, SHA256: zero, RootHash: zero, Merge: string(f.merge)})
	return err
}

// readChecks reads the programs to bake that check a new slot.
func (f *files) readChecks(s Spec) error {
	for _, file := range s.Checks {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cannot read --check: %w", err)
		}
		if !strings.HasPrefix(string(data), "#!") && !strings.HasPrefix(string(data), "\x7fELF") {
			return fmt.Errorf("cannot bake check %s: it is not a program: it must begin with #!, or be an ELF file", file)
		}
		f.checks[filepath.Base(file)] = data
	}
	return nil
}

// readLock reads the packages of a manifest.json.
func (f *files) readLock(s Spec) error {
	if s.Lock == "" {
		return nil
	}
	data, err := os.ReadFile(s.Lock)
	if err != nil {
		return fmt.Errorf("cannot read --lock: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("cannot read --lock %s: %w; it should be the manifest.json of an image", s.Lock, err)
	}
	if len(m.Packages) == 0 {
		return fmt.Errorf("cannot use --lock %s: it names no packages; it should be the manifest.json of an image", s.Lock)
	}
	f.inputs.lock = m.Packages
	return nil
}
