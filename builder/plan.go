package builder

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// Plan is what will be done, whole, before anything is fetched or written.
// The same Spec gives the same bytes of JSON.
type Plan struct {
	Kbuild     string             `json:"kbuild"` // version of kbuild
	Spec       Spec               `json:"spec"`
	Release    images.Release     `json:"release"`
	Images     []string           `json:"images"` // full names that the image will hold
	Components []source.Component `json:"components"`
	Base       base.Description   `json:"base"`
	Tree       []TreeEntry        `json:"tree,omitempty"` // what kbuild adds to the base OS on a disk
	Partitions []disk.Partition   `json:"partitions,omitempty"`
	Cmdline    []string           `json:"cmdline,omitempty"` // kernel command line, but for the root hash
	Sysext     []TreeEntry        `json:"sysext,omitempty"`  // what is in the system extension, but for container images
	Outputs    []string           `json:"outputs"`

	want      source.Want
	baked     images.Baked
	config    []byte             // kubeadm kinds to bake; nil for none
	manifests map[string][]byte  // by file name
	merge     []byte             // the user's Ignition config, made of Spec.Butane; nil for none
	checks    map[string][]byte  // by file name
	sign      ed25519.PrivateKey // of the update; nil for none
	identity  tls.Certificate    // of boot loader and kernel; empty for none
}

// Version is kbuild's own: the module version of a released build, else
// "devel".
func Version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}

// Resolve makes the Plan of a Spec. It reads the files that the Spec names
// and nothing else.
func Resolve(ctx context.Context, s Spec, src source.Source) (*Plan, error) {
	rel, err := s.check()
	if err != nil {
		return nil, BadSpec{err}
	}
	p := &Plan{Kbuild: Version(), Spec: s, Release: rel, manifests: map[string][]byte{}, checks: map[string][]byte{}}
	for _, read := range []func() error{p.readConfig, p.readManifests, p.readButane, p.readChecks, p.readKeys} {
		if err := read(); err != nil {
			return nil, BadSpec{err}
		}
	}
	if p.Components, err = src.Resolve(ctx, p.want); err != nil {
		return nil, err
	}
	p.Images = imageNames(p.Components, p.want)
	kind, _, _ := strings.Cut(s.Source, ":")
	b := &p.baked
	b.Kbuild, b.Source, b.Arch, b.BuildTime = p.Kbuild, kind, s.Arch, s.Epoch
	b.CNI, b.Images, b.Release, b.UnsignedUpdates = s.CNI, p.Images, rel, s.UnsignedUpdates
	if s.CNI != "none" {
		p.baked.PodCIDR = defaultPodCIDR
	}
	if p.Base, err = base.Describe(s.Arch); err != nil {
		return nil, err
	}
	if len(s.diskFormats()) > 0 {
		t, err := p.tree(nil)
		if err != nil {
			return nil, err
		}
		p.Tree = t.summary()
		p.Partitions = disk.Plan(p.layout())
		p.Cmdline = disk.Cmdline(s.Cmdline)
	}
	if s.has(ignitionFormat) {
		t, err := p.sysextTree(nil, base.Tree{})
		if err != nil {
			return nil, err
		}
		p.Sysext = t.summary()
	}
	p.Outputs = outputs(s, anyHash)
	return p, nil
}

// layout is what the partition table depends on.
func (p *Plan) layout() disk.Layout { return disk.Layout{Seed: p.seed(), Version: p.Spec.Version} }

// seed derives the GUIDs of the disk from what makes it this image: the same
// Spec gives the same GUIDs, wherever its outputs go.
func (p *Plan) seed() string {
	s := p.byContent()
	s.Formats, s.SysextURL, s.SignKey = nil, "", ""
	s.SecureBootKey, s.SecureBootCert = "", ""
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a Spec is strings and a time
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// byContent is the Spec with, for each file that it names, what is in it: where
// inputs lie changes no output.
func (p *Plan) byContent() Spec {
	s := p.Spec
	s.Out, s.Lock, s.Butane = "", "", ""
	s.Source, _, _ = strings.Cut(s.Source, ":")
	sum := func(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
	if s.Config != "" {
		s.Config = sum(p.config)
	}
	s.Manifests, s.Checks = slices.Clone(s.Manifests), slices.Clone(s.Checks)
	for list, data := range map[*[]string]map[string][]byte{&s.Manifests: p.manifests, &s.Checks: p.checks} {
		for i, file := range *list {
			name := filepath.Base(file)
			(*list)[i] = name + " " + sum(data[name])
		}
	}
	s.UpdateKeys = p.baked.UpdateKeys
	for _, file := range []*string{&s.SignKey, &s.SecureBootKey, &s.SecureBootCert} {
		if *file != "" {
			*file = "given" // which, is among the keys, or part of the outputs' signatures
		}
	}
	return s
}

// readConfig reads and checks the kubeadm kinds to bake, and takes from them
// what the image list depends on.
func (p *Plan) readConfig() error {
	s := p.Spec
	registry := s.Registry
	p.want = source.Want{Release: p.Release, Arch: s.Arch, CNI: s.CNI, Registry: registry}
	var err error
	if p.want.Images, err = source.FullNames(s.Include); err != nil {
		return fmt.Errorf("cannot use --include-image: %w", err)
	}
	if s.Config == "" {
		return nil
	}
	data, err := os.ReadFile(s.Config)
	if err != nil {
		return fmt.Errorf("cannot read --config: %w", err)
	}
	node, err := config.Parse(images.Baked{Release: p.Release}, config.Document{Source: s.Config, Data: data, Baked: true})
	if err != nil && !errors.Is(err, config.ErrNoRole) {
		return err
	}
	if registry == "" && node != nil {
		p.want.Registry = node.Cluster.ImageRepository
	}
	p.config = data
	return nil
}

// readManifests reads the manifests to bake and adds the images they name.
func (p *Plan) readManifests() error {
	for _, file := range p.Spec.Manifests {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("cannot read --manifest: %w", err)
		}
		refs, err := manifestImages(file, data)
		if err != nil {
			return err
		}
		p.manifests[filepath.Base(file)] = data
		full, err := source.FullNames(refs)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		p.want.Images = append(p.want.Images, full...)
	}
	slices.Sort(p.want.Images)
	p.want.Images = slices.Compact(p.want.Images)
	return nil
}

// imageNames are the full names of all images that the components end up in.
func imageNames(cs []source.Component, w source.Want) []string {
	names := slices.Clone(w.Images)
	for _, c := range cs {
		if c.Image != "" {
			names = append(names, c.Image)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// tree is what kbuild adds to the base OS. out is nil while planning: then
// the entries have no content to copy, but all have their places.
func (p *Plan) tree(out *source.Output) (*tree, error) {
	t := newTree()
	if err := t.overlay("templates", templates.Root()); err != nil {
		return nil, err
	}
	if err := p.placeBaked(t, out); err != nil {
		return nil, err
	}
	limit := fmt.Sprintf("# --trial-limit\n[Unit]\nJobTimeoutSec=%ds\n", int64(p.Spec.TrialLimit.Seconds()))
	if err := t.place("/usr/lib/systemd/system/boot-complete.target.d/20-trial-limit.conf", entry{owner: "plan", mode: 0o644, data: []byte(limit)}); err != nil {
		return nil, err
	}
	return t, t.place(images.StoreDir, entry{owner: "layout", mode: 0o755, dir: true})
}

// placeBaked places what disks and system extensions both hold: what the image
// says of itself, the user's own files, and the programs.
func (p *Plan) placeBaked(t *tree, out *source.Output) error {
	baked, err := json.MarshalIndent(p.baked, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		images.BakedFile: append(baked, '\n'),
	}
	if p.config != nil {
		files[images.BakedConfig] = p.config
	}
	for name, data := range p.manifests {
		files[path.Join(images.BakedManifest, name)] = data
	}
	for name, data := range files {
		if err := t.place(name, entry{owner: "plan", mode: 0o644, data: data}); err != nil {
			return err
		}
	}
	for name, data := range p.checks {
		if err := t.place(path.Join(images.BakedChecks, name), entry{owner: "plan", mode: 0o755, data: data}); err != nil {
			return err
		}
	}
	if err := t.place(images.BakedManifest, entry{owner: "layout", mode: 0o755, dir: true}); err != nil {
		return err
	}
	for _, name := range []string{"kubelet", "kubectl"} {
		e := entry{owner: name, mode: 0o755}
		if out != nil {
			if e.file = out.Binaries[name]; e.file == "" {
				return fmt.Errorf("cannot build the image: source %s gave no %s", p.Spec.Source, name)
			}
		}
		if err := t.place("/usr/bin/"+name, e); err != nil {
			return err
		}
	}
	return t.place("/usr/bin/kbuild-firstboot", entry{owner: "kbuild-firstboot", mode: 0o755})
}

// anyHash stands in an output's name for the beginning of the root hash, which
// nobody knows before the build.
const anyHash = "*"

// outputs are the names of the files that will be written; rootHash may be
// anyHash.
func outputs(s Spec, rootHash string) []string {
	out := []string{"SHA256SUMS", "manifest.json", "sbom.cdx.json"}
	if disks := s.diskFormats(); len(disks) > 0 {
		out = append(out, "root.roothash", images.UpdateFile)
		for _, what := range []string{images.UpdateRoot, images.UpdateVerity, images.UpdateUKI} {
			out = append(out, images.UpdateName(s.Version, rootHash, what))
		}
		if s.SignKey != "" {
			out = append(out, images.UpdateSignature)
		}
		for _, f := range disks {
			out = append(out, "disk."+f)
		}
	}
	if s.has(ignitionFormat) {
		out = append(out, "sysext.raw", "sysext.roothash", "node.bu", "node.ign")
	}
	slices.Sort(out)
	return out
}
