package builder

import (
	"fmt"
	"os"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
)

// writeSBOM writes what is in the image as a CycloneDX 1.6 document: Debian
// packages, components and container images, each with its package URL.
func writeSBOM(file string, m Manifest) error {
	bom := cdx.NewBOM()
	// A serial number must be unique to the content and the same for the same
	// content: a name-based UUID of the root hashes.
	hash, hashes := m.RootHash, m.RootHash
	if m.Sysext != nil {
		hashes += m.Sysext.RootHash
	}
	if hash == "" {
		hash = hashes
	}
	bom.SerialNumber = "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, []byte("kbuild:"+hashes)).String()
	bom.Metadata = &cdx.Metadata{
		Timestamp: m.Epoch.Format("2006-01-02T15:04:05Z"),
		Component: &cdx.Component{
			BOMRef: "image", Type: cdx.ComponentTypeOS, Name: "kbuild-node", Version: m.Version,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hash}},
		},
	}
	var cs []cdx.Component
	for _, p := range m.Packages {
		if m.RootHash == "" && !slices.Contains(m.Sysext.Packages, p.Name) {
			continue // of the base OS, but not in the extension
		}
		if slices.Contains(replaced(m.Components), p.Name) {
			continue // of the base OS, but written over
		}
		purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", p.Name, strings.ReplaceAll(p.Version, "+", "%2B"), p.Arch)
		c := cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: purl}
		if p.SHA256 != "" {
			c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: p.SHA256}}
		}
		cs = append(cs, c)
	}
	for i, comp := range m.Components {
		c := cdx.Component{
			BOMRef: fmt.Sprintf("component-%d-%s", i, comp.Name), Type: cdx.ComponentTypeApplication,
			Name: comp.Name, Version: comp.Version, Description: comp.Source,
		}
		if module, ok := strings.CutPrefix(comp.Source, "module "); ok {
			path, version, found := strings.Cut(module, "@")
			if !found {
				version = comp.Version
			}
			c.PackageURL = "pkg:golang/" + path + "@" + version
		}
		cs = append(cs, c)
	}
	for _, img := range m.Images {
		cs = append(cs, cdx.Component{
			BOMRef: "image-" + img.Name, Type: cdx.ComponentTypeContainer, Name: img.Name, Version: img.Digest,
		})
	}
	bom.Components = &cs
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	enc := cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON)
	enc.SetPretty(true)
	if err := enc.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		f.Close()
		return fmt.Errorf("cannot write SBOM: %w", err)
	}
	return f.Close()
}
