// Package schema holds, for each minor release of Kubernetes that kbuild
// knows, the fields of its configuration kinds: those of kubeadm, the kubelet
// and kube-proxy. With it a node can refuse a field that its own Kubernetes
// would refuse or, worse, ignore, and can write a document just as kubeadm of
// that version marshals it, without compiling three generations of their
// types.
//
// The files v1.MINOR.json are generated from the sources of that version by
// the command in generate; they are never edited by hand.
package schema

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/images"
)

//go:generate go run ./generate -o . v1.19.12 v1.20.15 v1.21.14 v1.22.17 v1.23.17 v1.24.17 v1.25.16 v1.26.15 v1.27.16 v1.28.15 v1.29.15 v1.30.14 v1.31.14 v1.32.13 v1.33.13 v1.34.4 v1.35.4 v1.36.3 v1.37.2

//go:embed v1.*.json
var files embed.FS

// Schema is the fields of one Kubernetes version's kinds.
type Schema struct {
	Version string `json:"version"` // the version it was read from
	// Kinds maps "group/version/Kind" to the name of a type.
	Kinds map[string]string `json:"kinds"`
	// Types maps a type's name to its fields, and each field's JSON name to
	// its type, as Parse reads it.
	Types map[string]map[string]string `json:"types"`
	// FeatureGates are those of kubeadm itself, with their defaults.
	FeatureGates map[string]bool `json:"featureGates"`
}

// Type is the type of a field. Its spelling is a prefix "*" (pointer: absent
// differs from zero), "[]" (list) or "map " (string keys) before another type,
// "$NAME" for a struct of Schema.Types, or one of string, bool, int, int32,
// int64, uint32, uint64, float32, float64, byte, duration ("1m0s"),
// nanoseconds (a number, or a duration), time (RFC 3339), quantity ("1Gi").
// " omitempty" after a field's type means that its zero value is not written.
type Type struct {
	Name      string // the whole spelling, without " omitempty"
	OmitEmpty bool
}

// Parse reads the spelling of a field's type.
func Parse(s string) Type {
	name, ok := strings.CutSuffix(s, " omitempty")
	return Type{Name: name, OmitEmpty: ok}
}

// Pointer, List and Map return what the type points to or holds.
func (t Type) Pointer() (Type, bool) { return t.cut("*") }
func (t Type) List() (Type, bool)    { return t.cut("[]") }
func (t Type) Map() (Type, bool)     { return t.cut("map ") }

// Struct returns the name of the struct that the type is.
func (t Type) Struct() (string, bool) { return strings.CutPrefix(t.Name, "$") }

func (t Type) cut(prefix string) (Type, bool) {
	rest, ok := strings.CutPrefix(t.Name, prefix)
	return Type{Name: rest}, ok
}

// Find returns the newest schema that has a kind, "group/version/Kind".
func Find(kind string) (*Schema, error) {
	known := images.Known()
	for _, r := range slices.Backward(known) {
		release, err := images.Lookup(r.Newest)
		if err != nil {
			return nil, err
		}
		s, err := Load(release.Minor())
		if err != nil {
			return nil, err
		}
		if _, ok := s.Kinds[kind]; ok {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no version of Kubernetes that this kbuild knows has the kind %s", kind)
}

// Load returns the schema of a minor release, e.g. 19.
func Load(minor int) (*Schema, error) {
	b, err := files.ReadFile(fmt.Sprintf("v1.%d.json", minor))
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration of Kubernetes v1.%d: this kbuild has no schema of its kinds", minor)
	}
	s := &Schema{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("cannot read the schema of Kubernetes v1.%d: %w", minor, err)
	}
	return s, nil
}
