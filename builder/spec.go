// Package builder turns a Kubernetes version into a node image.
//
// Data flows one way: a Spec is what the user wants, Resolve makes it a Plan,
// which is pure data and can be printed, and Build carries the Plan out.
// Nothing is fetched or written before the Plan is whole.
package builder

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/ignition"
	"github.com/kbuild/kbuild/images"
)

// Spec is what the user wants: the flags of `kbuild image`.
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
	Lock      string    `json:"lock,omitempty"`      // manifest.json whose packages the base must have
	Out       string    `json:"out"`                 // directory for the outputs
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

// ignitionFormat is the one format that is no disk: a system extension and
// the configs that bring it to an operating system that boots with Ignition.
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

// check refuses what can be refused without looking at anything outside, and
// fills in what is missing.
func (s *Spec) check() (images.Release, error) {
	if s.Version == "" {
		return images.Release{}, fmt.Errorf("cannot plan an image: no version given; say --version v1.19.12")
	}
	rel, err := images.Lookup(s.Version)
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
	seen := map[string]string{}
	for _, m := range s.Manifests {
		b := filepath.Base(m)
		if e := filepath.Ext(b); e != ".yaml" && e != ".yml" {
			return rel, fmt.Errorf("cannot bake manifest %s: want a .yaml or .yml file", m)
		}
		if old, taken := seen[b]; taken {
			return rel, fmt.Errorf("cannot bake manifests %s and %s: both are named %s; rename one", old, m, b)
		}
		seen[b] = m
	}
	return rel, nil
}

func (s *Spec) checkIgnition() (err error) {
	for flag, v := range map[string]string{"--sysext-url": s.SysextURL, "--butane": s.Butane} {
		if v != "" && !s.has(ignitionFormat) {
			return fmt.Errorf("%s %s is for Ignition: say --format %s too", flag, v, ignitionFormat)
		}
	}
	if s.has(ignitionFormat) {
		s.SysextURL, err = ignition.URL(s.SysextURL)
	}
	return err
}
