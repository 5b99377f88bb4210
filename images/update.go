package images

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Names of the files of an update, which are in one directory. UpdateSignature is the Ed25519 signature (RFC 8032, 64 bytes)
// of the bytes of UpdateSums, which hold the digest of UpdateFile, which holds
// those of the rest.
const (
	UpdateFile      = "update.json" // Update, as JSON
	UpdateSums      = "SHA256SUMS"
	UpdateSignature = "SHA256SUMS.sig"
)

// The other files; see UpdateName.
const (
	UpdateRoot   = "root.erofs"
	UpdateVerity = "root.verity"
	UpdateUKI    = "uki.efi"
)

// UpdateName is the name of one of an update's parts. It contains version and the
// beginning of the root hash, so that no cache, no directory that is replaced and
// no resumed download can mix the files of two images.
func UpdateName(version, rootHash, what string) string {
	return fmt.Sprintf("kbuild_%s_%s.%s", version, rootHash[:min(16, len(rootHash))], what)
}

// Update describes the contents of a slot, and what a node must know before it
// installs them. The facts of the release come with it, because they are newer
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
	// TrialBoots is how many boots of it may fail before the node falls back to
	// the old slot, from 1 to MaxTrialBoots.
	TrialBoots int `json:"trialBoots"`
	// SecureBoot says that the kernel is signed for firmware that checks it.
	SecureBoot bool `json:"secureBoot,omitempty"`
}

// MaxTrialBoots is the limit of the boot loader's counter, which has one digit.
const MaxTrialBoots = 9

// Part is one file of an update.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Parts are the files in the order in which they are written.
func (u Update) Parts() []Part { return []Part{u.Root, u.Verity, u.UKI} }

// ReadUpdate reads the bytes of update.json, and refuses any that is incomplete.
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
		errs = append(errs, fmt.Errorf("rootHash %q is not a SHA-256", u.RootHash))
	}
	if _, _, _, err := parse(u.Release.Version); err != nil {
		errs = append(errs, err)
	}
	if u.TrialBoots < 1 || u.TrialBoots > MaxTrialBoots {
		errs = append(errs, fmt.Errorf("trialBoots is %d, want 1 to %d", u.TrialBoots, MaxTrialBoots))
	}
	for i, what := range []string{UpdateRoot, UpdateVerity, UpdateUKI} {
		p := u.Parts()[i]
		if p.Name != UpdateName(u.Release.Version, u.RootHash, what) || p.Size <= 0 || !isHash(p.SHA256) {
			errs = append(errs, fmt.Errorf("the entry of %s has name %q, size %d, sha256 %q", what, p.Name, p.Size, p.SHA256))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return u, fmt.Errorf("cannot use %s: %w", UpdateFile, err)
	}
	return u, nil
}

// An update as an OCI artifact is a manifest whose config is of ArtifactType
// and whose layers are the files, named by the annotation ArtifactTitle (OCI
// image specification, annotations.md).
const (
	ArtifactType  = "application/vnd.kbuild.update.v1+json"
	ArtifactTitle = "org.opencontainers.image.title"
)
