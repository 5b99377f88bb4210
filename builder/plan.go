package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// Plan is what will be done, whole, before anything is fetched or written.
// Specs that ask for the same give the same bytes of JSON.
type Plan struct {
	Kbuild     string             `json:"kbuild"` // version of kbuild
	Spec       Spec               `json:"spec"`   // with digests in place of the names of files
	Want       source.Want        `json:"want"`
	Images     []string           `json:"images"` // full names that the image will hold
	Components []source.Component `json:"components"`
	Base       base.Description   `json:"base"`
	Tree       []Entry            `json:"tree,omitempty"` // what kbuild adds to the base OS on a disk, but for container images
	Partitions []disk.Partition   `json:"partitions,omitempty"`
	Cmdline    []string           `json:"cmdline,omitempty"` // kernel command line, but for the root hash
	Sysext     []Entry            `json:"sysext,omitempty"`  // what is in the system extension, but for container images
	Outputs    []string           `json:"outputs"`
}

// Resolve makes the Plan of a Spec, and collects what it refers to. It reads the
// files that the Spec names and, for a patch release of Kubernetes that kbuild has
// not seen, that release's module, and nothing else.
func Resolve(ctx context.Context, s Spec, src source.Source) (*Plan, *Inputs, error) {
	rel, err := s.check(ctx)
	if err != nil {
		return nil, nil, BadSpec{err}
	}
	f, err := readFiles(s, rel)
	if err != nil {
		return nil, nil, BadSpec{err}
	}
	p := &Plan{Kbuild: Version(), Spec: f.byContent(s), Want: f.want}
	if p.Components, err = src.Resolve(ctx, p.Want); err != nil {
		return nil, nil, err
	}
	p.Images = imageNames(p.Components, p.Want)
	if p.Base, err = base.Describe(s.Arch); err != nil {
		return nil, nil, err
	}
	in := f.inputs
	if len(s.diskFormats()) > 0 {
		t := newTree(in.content)
		if err := t.addDisk(p, f); err != nil {
			return nil, nil, err
		}
		p.Tree = t.list()
		p.Partitions = disk.Plan(p.layout())
		p.Cmdline = disk.Cmdline(s.Cmdline)
	}
	if s.has(ignitionFormat) {
		t := newTree(in.content)
		if err := t.addSysext(p, f); err != nil {
			return nil, nil, err
		}
		p.Sysext = t.list()
	}
	p.Outputs = outputs(s, anyHash)
	return p, in, nil
}

// layout is what the partition table depends on.
func (p *Plan) layout() disk.Layout { return disk.Layout{Seed: p.seed(), Version: p.Spec.Version} }

// seed derives the GUIDs of the disk from what makes it this image: the same
// Spec gives the same GUIDs in every format, whoever signs it.
func (p *Plan) seed() string {
	s := p.Spec
	s.Formats, s.SysextURL, s.Butane, s.SignKey = nil, "", "", ""
	s.SecureBootKey, s.SecureBootCert = "", ""
	b, err := json.Marshal(struct {
		Spec
		Out string `json:"out"` // always empty: without it every disk would get other GUIDs than it has had
	}{Spec: s})
	if err != nil {
		panic(err) // a Spec is strings and a time
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// baked is what the image says of itself.
func (p *Plan) baked() images.Baked {
	b := images.Baked{
		Kbuild: p.Kbuild, Source: p.Spec.Source, Arch: p.Spec.Arch, BuildTime: p.Spec.Epoch,
		CNI: p.Spec.CNI, Images: p.Images, Release: p.Want.Release,
		UpdateKeys: p.Spec.UpdateKeys, UnsignedUpdates: p.Spec.UnsignedUpdates,
		ImageRepository: p.Spec.Registry,
	}
	b.PodCIDR = podCIDR(b.CNI)
	return b
}

// podCIDR is the pod network that an image with a CNI defaults to.
func podCIDR(cni string) string {
	if cni == "none" {
		return ""
	}
	return defaultPodCIDR
}

// plugins are the names of the CNI plugins, sorted.
func (p *Plan) plugins() (names []string) {
	for _, c := range p.Components {
		if name, ok := strings.CutPrefix(c.Name, "cni/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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

// anyHash stands in an output's name for the beginning of the root hash, which
// is not known before the build.
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
