package builder

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// Manifest is manifest.json: what is inside an image. With --lock it holds
// another build to the same packages.
type Manifest struct {
	Kbuild     string             `json:"kbuild"`
	Version    string             `json:"version"`
	Arch       string             `json:"arch"`
	Epoch      time.Time          `json:"epoch"`
	Source     string             `json:"source"`
	CNI        string             `json:"cni"`
	Inputs     string             `json:"inputs"`             // hash of everything that the build was made from
	RootHash   string             `json:"rootHash,omitempty"` // of the disk: dm-verity, hex
	Kernel     string             `json:"kernel,omitempty"`
	DiskGUID   string             `json:"diskGUID,omitempty"`
	Cmdline    []string           `json:"cmdline,omitempty"`
	Partitions []disk.Partition   `json:"partitions,omitempty"`
	Sysext     *Sysext            `json:"sysext,omitempty"`
	Components []source.Component `json:"components"`
	Images     []BakedImage       `json:"images"`
	Packages   []base.Package     `json:"packages"` // of the base OS
	Files      []OutputFile       `json:"files"`    // the other outputs
}

// Sysext is what manifest.json says of the system extension alone. It holds
// the Components and Images.
type Sysext struct {
	RootHash   string           `json:"rootHash"` // dm-verity, hex
	URL        string           `json:"url"`      // where node.ign has machines fetch it
	Partitions []disk.Partition `json:"partitions"`
	Packages   []string         `json:"packages"` // those of the base OS that it takes files from
}

// OutputFile is one file that a build wrote.
type OutputFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// writeRecords writes manifest.json, the SBOM and SHA256SUMS for the outputs
// in dir; key names what they were built from.
func writeRecords(dir string, p *Plan, sign ed25519.PrivateKey, key string, made made, os_ base.Tree) error {
	d := made.disk
	m := Manifest{
		Kbuild: p.Kbuild, Version: p.Spec.Version, Arch: p.Spec.Arch, Epoch: p.Spec.Epoch,
		Source: p.Spec.Source, CNI: p.Spec.CNI, Inputs: key, RootHash: d.RootHash, Kernel: d.Kernel, DiskGUID: d.DiskGUID, Cmdline: strings.Fields(d.Cmdline),
		Partitions: d.Partitions, Components: p.Components, Images: made.images, Packages: os_.Packages,
	}
	if x := made.sysext; x.RootHash != "" {
		m.Sysext = &Sysext{RootHash: x.RootHash, URL: p.Spec.SysextURL, Partitions: x.Partitions, Packages: p.sysextPackages()}
	}
	names := outputs(p.Spec, d.RootHash)
	for _, name := range names {
		switch name {
		case "manifest.json", "sbom.cdx.json", images.UpdateSums, images.UpdateSignature:
			continue
		}
		f, err := outputFile(dir, name)
		if err != nil {
			return err
		}
		m.Files = append(m.Files, f)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	if err := writeSBOM(filepath.Join(dir, "sbom.cdx.json"), m); err != nil {
		return err
	}
	var sums strings.Builder
	for _, name := range names {
		if name == images.UpdateSums || name == images.UpdateSignature {
			continue
		}
		f, err := outputFile(dir, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, name)
	}
	if sign != nil {
		sig := ed25519.Sign(sign, []byte(sums.String()))
		if err := os.WriteFile(filepath.Join(dir, images.UpdateSignature), sig, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, images.UpdateSums), []byte(sums.String()), 0o644)
}

func outputFile(dir, name string) (OutputFile, error) {
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	if err != nil {
		return OutputFile{}, err
	}
	sum, err := hashFile(path)
	return OutputFile{Name: name, Size: st.Size(), SHA256: hex.EncodeToString(sum[:])}, err
}
