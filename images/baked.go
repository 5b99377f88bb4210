package images

import (
	"encoding/json"
	"fmt"
	"time"
)

// Files that the builder puts into the image's read-only root, and the node
// reads.
const (
	BakedFile     = "/usr/share/kbuild/release.json" // Baked, as JSON
	BakedConfig   = "/usr/share/kbuild/config.yaml"  // kubeadm configuration that user-data overrides; may be missing
	BakedManifest = "/usr/share/kbuild/manifests"    // *.yaml, applied at init in the order of their names
	BakedChecks   = "/usr/lib/kbuild/checks.d"       // programs that must exit with 0 before a new slot is kept
	StoreDir      = "/usr/lib/kbuild/images"         // the image store; see below
)

// The image store is an OCI image layout (oci-layout, index.json,
// blobs/sha256/… of manifests and configs) whose layers are not blobs but
// directories: layers/HEX, named by diff ID without the "sha256:". Each entry
// of index.json carries the image's full name in the annotation
// "io.containerd.image.name" (RefAnnotation).
const (
	RefAnnotation = "io.containerd.image.name"
	LayersDir     = "layers"
)

// Baked is what an image says of itself: release.json.
type Baked struct {
	Kbuild    string    `json:"kbuild"`            // version of kbuild that built it
	Source    string    `json:"source"`            // modules, release or dir
	Arch      string    `json:"arch"`              // GOARCH of the node
	BuildTime time.Time `json:"buildTime"`         // SOURCE_DATE_EPOCH of the build; no node's clock may be earlier
	CNI       string    `json:"cni"`               // flannel or none
	PodCIDR   string    `json:"podCIDR,omitempty"` // the pod network that the baked CNI manifest names
	Images    []string  `json:"images"`            // full names in the store, sorted
	Release   Release   `json:"release"`
	// ImageRepository is in the names of the control plane's images in place of
	// Release.Registry; empty where the image was built with no other.
	ImageRepository string `json:"imageRepository,omitempty"`
	// UpdateKeys are public keys (PEM, Ed25519), one of which must have signed an
	// update. Without any, updates are accepted only if UnsignedUpdates is set.
	UpdateKeys      []string `json:"updateKeys,omitempty"`
	UnsignedUpdates bool     `json:"unsignedUpdates,omitempty"`
}

// Registry is the image repository that a node of this image defaults to.
func (b Baked) Registry() string {
	if b.ImageRepository != "" {
		return b.ImageRepository
	}
	return b.Release.Registry
}

// ReadBaked reads the bytes of release.json.
func ReadBaked(b []byte) (Baked, error) {
	var v Baked
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("cannot read %s: %w", BakedFile, err)
	}
	return v, nil
}
