// Package builder turns a Kubernetes version into a node image.
//
// Data flows one way: a Spec is what the user wants, Resolve makes it a Plan,
// and Build carries the Plan out. A Plan is pure data: what kbuild prints of it
// is all of it. Every path that kbuild puts into the image is in its trees,
// which are made once, in Resolve; an entry holds its text or refers to its
// content, and Build only looks up what is referred to. Secrets and the bytes
// of the user's files stay outside, in Inputs. Nothing is fetched or written
// before the Plan is whole, and equal Plans give equal images.
package builder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/ignition"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// Spec is what the user wants: the flags of `kbuild image`. In a Plan, the
// digest of a file's content stands for its name, so that it does not matter
// where the file is. Where the outputs go, and the Lock, which only prevents a build,
// are not part of the Plan.
type Spec struct {
	Version   string    `json:"version"`             // "v1.19.12"
	Source    string    `json:"source"`              // "modules", "release" or "dir:PATH"
	Arch      string    `json:"arch"`                // GOARCH of the node
	CNI       string    `json:"cni"`                 // "flannel" or "none"
	Formats   []string  `json:"formats"`             // of "raw", "qcow2", "ignition"
	Config    string    `json:"config,omitempty"`    // file with kubeadm kinds to bake
	Manifests []string  `json:"manifests,omitempty"` // files to bake and to apply at init
	Include   []string  `json:"include,omitempty"`   // further image names to bake
	Registry  string    `json:"registry,omitempty"`  // image repository instead of the version's own
	Cmdline   []string  `json:"cmdline,omitempty"`   // more kernel command line
	Epoch     time.Time `json:"epoch"`               // SOURCE_DATE_EPOCH: the time of everything in the image
	SysextURL string    `json:"sysextURL,omitempty"` // where machines fetch the system extension; "ignition" only
	Butane    string    `json:"butane,omitempty"`    // file with a Butane config to merge; "ignition" only
	Lock      string    `json:"-"`                   // manifest.json whose packages the base must have
	// SignKey is a file with the private key that signs the update; its public
	// half is baked, like those in the files UpdateKeys. PEM, Ed25519.
	SignKey    string   `json:"signKey,omitempty"`
	UpdateKeys []string `json:"updateKeys,omitempty"`
	// SecureBootKey and SecureBootCert are files with the identity that signs boot
	// loader and kernel. PEM.
	SecureBootKey   string `json:"secureBootKey,omitempty"`
	SecureBootCert  string `json:"secureBootCert,omitempty"`
	UnsignedUpdates bool   `json:"unsignedUpdates,omitempty"` // the node accepts unsigned updates
	// TrialLimit is how long after it starts a boot of a new slot may take to
	// become healthy, in nanoseconds.
	TrialLimit time.Duration `json:"trialLimit"`
	// TrialBoots is how many boots of a new slot may end without becoming healthy.
	TrialBoots int      `json:"trialBoots"`
	Checks     []string `json:"checks,omitempty"` // programs to bake that check a new slot
	Out        string   `json:"-"`                // directory for the outputs
}

// BadSpec is the error of a Spec, or of a file that it names, that is wrong.
type BadSpec struct{ Err error }

func (e BadSpec) Error() string { return e.Err.Error() }
func (e BadSpec) Unwrap() error { return e.Err }

// defaultEpoch is the time that an image claims for its contents when
// SOURCE_DATE_EPOCH is not set. It moves with kbuild's releases, so that the
// same kbuild makes the same bytes.
var defaultEpoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// defaultPodCIDR is the pod network that an image with flannel defaults to;
// it is the one in flannel's own documentation.
const defaultPodCIDR = "10.244.0.0/16"

// DefaultTrialLimit is generous: a node that was off for a long time also waits
// for its cluster.
const DefaultTrialLimit = 10 * time.Minute

// DefaultTrialBoots is the number of tries in systemd's own examples.
const DefaultTrialBoots = 3

// ignitionFormat is the only format that is not a disk: a system extension, and
// the configs that install it on an operating system that boots with Ignition.
const ignitionFormat = "ignition"

// Formats that Build can write. With a disk come the slot's update files.
var formats = []string{"raw", "qcow2", ignitionFormat}

func (s *Spec) has(format string) bool { return slices.Contains(s.Formats, format) }

// diskFormats are those of the formats that are a disk.
func (s *Spec) diskFormats() []string {
	return slices.DeleteFunc(slices.Clone(s.Formats), func(f string) bool { return f == ignitionFormat })
}

// Time is the time of everything in the image.
func (s *Spec) Time() time.Time {
	if s.Epoch.IsZero() {
		return defaultEpoch
	}
	return s.Epoch.UTC().Truncate(time.Second)
}

// check refuses what is wrong in the Spec itself, and fills in defaults.
func (s *Spec) check(ctx context.Context) (images.Release, error) {
	if s.Version == "" {
		return images.Release{}, fmt.Errorf("cannot plan an image: no version given; add --version v1.19.12")
	}
	rel, err := source.Lookup(ctx, s.Version)
	if err != nil {
		return rel, err
	}
	s.Version = rel.Version
	if s.Source == "" {
		s.Source = "modules"
	}
	if s.Arch == "" {
		s.Arch = "amd64"
	}
	if s.CNI == "" {
		s.CNI = "flannel"
	}
	s.Epoch = s.Time()
	if len(s.Formats) == 0 {
		s.Formats = []string{"raw"}
	}
	if err := disk.CheckCmdline(s.Cmdline); err != nil {
		return rel, fmt.Errorf("cannot use --cmdline: %w", err)
	}
	if (s.SecureBootKey == "") != (s.SecureBootCert == "") {
		return rel, errors.New("cannot sign for Secure Boot: give both --secure-boot-key and --secure-boot-cert")
	}
	if s.TrialLimit == 0 {
		s.TrialLimit = DefaultTrialLimit
	}
	if s.TrialLimit < time.Minute {
		return rel, fmt.Errorf("--trial-limit is %s: want a minute or more", s.TrialLimit)
	}
	if s.TrialBoots == 0 {
		s.TrialBoots = DefaultTrialBoots
	}
	if s.TrialBoots < 1 || s.TrialBoots > images.MaxTrialBoots {
		return rel, fmt.Errorf("--trial-boots is %d: want 1 to %d", s.TrialBoots, images.MaxTrialBoots)
	}
	if s.Arch != "amd64" {
		return rel, fmt.Errorf("cannot build for %s: only amd64 images are supported", s.Arch)
	}
	if s.CNI != "flannel" && s.CNI != "none" {
		return rel, fmt.Errorf("unknown pod network %q: want --cni flannel or --cni none", s.CNI)
	}
	for _, f := range s.Formats {
		if !slices.Contains(formats, f) {
			return rel, fmt.Errorf("unknown format %q: want --format %s", f, strings.Join(formats, ","))
		}
	}
	if err := s.checkIgnition(); err != nil {
		return rel, err
	}
	for _, m := range s.Manifests {
		if e := filepath.Ext(m); e != ".yaml" && e != ".yml" {
			return rel, fmt.Errorf("cannot bake manifest %s: want a .yaml or .yml file", m)
		}
	}
	return rel, errors.Join(oneEach("manifests", s.Manifests), oneEach("checks", s.Checks))
}

// oneEach refuses two files of the same name, since all go into one directory.
func oneEach(what string, files []string) error {
	seen := map[string]string{}
	for _, f := range files {
		b := filepath.Base(f)
		if old, taken := seen[b]; taken {
			return fmt.Errorf("cannot bake %s %s and %s: both are named %s; rename one", what, old, f, b)
		}
		seen[b] = f
	}
	return nil
}

func (s *Spec) checkIgnition() (err error) {
	for flag, v := range map[string]string{"--sysext-url": s.SysextURL, "--butane": s.Butane} {
		if v != "" && !s.has(ignitionFormat) {
			return fmt.Errorf("%s %s is only for Ignition: add --format %s", flag, v, ignitionFormat)
		}
	}
	if s.has(ignitionFormat) {
		s.SysextURL, err = ignition.URL(s.SysextURL)
	}
	return err
}
