package images

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Names of an image's files that an update is made of, beside each other in
// one directory. UpdateSignature is the Ed25519 signature (RFC 8032, 64 bytes)
// of the bytes of UpdateSums, which hold the digest of UpdateFile, which holds
// those of the rest.
const (
	UpdateFile      = "update.json" // Update, as JSON
	UpdateSums      = "SHA256SUMS"
	UpdateSignature = "SHA256SUMS.sig"
	UpdateRoot      = "root.erofs"
	UpdateVerity    = "root.verity"
	UpdateUKI       = "uki.efi"
)

// Update is what a slot is made of, and what the node that takes it must know
// beforehand. The facts of the release come with it, because they are newer
// than those of the image that the node runs.
type Update struct {
	Kbuild    string    `json:"kbuild"` // version of kbuild that built it
	Arch      string    `json:"arch"`   // GOARCH
	BuildTime time.Time `json:"buildTime"`
	Release   Release   `json:"release"`
	RootHash  string    `json:"rootHash"` // dm-verity, SHA-256 in hex
	Root      Part      `json:"root"`
	Verity    Part      `json:"verity"`
	UKI       Part      `json:"uki"`
}

// Part is one file of an update.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Parts are the files in the order in which they are written.
func (u Update) Parts() []Part { return []Part{u.Root, u.Verity, u.UKI} }

// ReadUpdate reads the bytes of update.json. What a node's disk is written by
// must be whole.
func ReadUpdate(b []byte) (Update, error) {
	var u Update
	if err := json.Unmarshal(b, &u); err != nil {
		return u, fmt.Errorf("cannot read %s: %w", UpdateFile, err)
	}
	isHash := func(s string) bool {
		h, err := hex.DecodeString(s)
		return err == nil && len(h) == 32
	}
	var errs []error
	if !isHash(u.RootHash) {
		errs = append(errs, fmt.Errorf("rootHash %q is no SHA-256", u.RootHash))
	}
	if _, _, _, err := parse(u.Release.Version); err != nil {
		errs = append(errs, err)
	}
	want := []string{UpdateRoot, UpdateVerity, UpdateUKI}
	for i, p := range u.Parts() {
		if p.Name != want[i] || p.Size <= 0 || !isHash(p.SHA256) {
			errs = append(errs, fmt.Errorf("the entry of %s has name %q, size %d, sha256 %q", want[i], p.Name, p.Size, p.SHA256))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return u, fmt.Errorf("cannot use %s: %w", UpdateFile, err)
	}
	return u, nil
}

// An update as an OCI artefact is a manifest whose config is of ArtifactType
// and whose layers are the files, named by the annotation ArtifactTitle (OCI
// image specification, annotations.md).
const (
	ArtifactType  = "application/vnd.kbuild.update.v1+json"
	ArtifactTitle = "org.opencontainers.image.title"
)
