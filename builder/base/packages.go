package base

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// parsePackages reads the records that apt-cache show prints and returns them
// sorted by name. The same package may come twice, with and without a
// translated description.
func parsePackages(out string) ([]Package, error) {
	var all []Package
	for _, record := range strings.Split(out, "\n\n") {
		if strings.TrimSpace(record) == "" {
			continue
		}
		var p Package
		for _, line := range strings.Split(record, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "Architecture":
				p.Arch = value
			case "SHA256":
				p.SHA256 = value
			}
		}
		if p.Name == "" || p.Version == "" || p.Arch == "" || len(p.SHA256) != 2*sha256.Size {
			return nil, fmt.Errorf("apt describes a package without name, version, architecture or SHA256: %.80q", record)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
	})
	return slices.Compact(all), nil
}

// treeKey is the name of a tree in the cache.
func treeKey(r recipe, packages []Package) string {
	sorted := slices.Clone(packages)
	slices.SortFunc(sorted, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch))
	})
	h := sha256.New()
	h.Write([]byte(r.hash()))
	if err := json.NewEncoder(h).Encode(sorted); err != nil {
		panic(err) // strings always encode
	}
	return hex.EncodeToString(h.Sum(nil))
}

// LockError says how the available packages differ from the locked ones.
type LockError struct {
	Differences []string // one line for each package
}

func (e *LockError) Error() string {
	return fmt.Sprintf("%d packages differ from the lock: %s; build without the lock to take the new ones, or from a mirror that still has the old ones",
		len(e.Differences), strings.Join(e.Differences, "; "))
}

// compareLock returns a *LockError that names each package of got that is not
// as locked, or nil.
func compareLock(locked, got []Package) error {
	type id struct{ name, arch string }
	have := map[id]Package{}
	for _, p := range got {
		have[id{p.Name, p.Arch}] = p
	}
	var diff []string
	for _, want := range locked {
		p, ok := have[id{want.Name, want.Arch}]
		delete(have, id{want.Name, want.Arch})
		switch {
		case !ok:
			diff = append(diff, fmt.Sprintf("%s: locked %s, now missing", want.Name, want.Version))
		case p.Version != want.Version:
			diff = append(diff, fmt.Sprintf("%s: locked %s, now %s", want.Name, want.Version, p.Version))
		case p.SHA256 != want.SHA256:
			diff = append(diff, fmt.Sprintf("%s %s: locked sha256:%s, now sha256:%s", want.Name, want.Version, want.SHA256, p.SHA256))
		}
	}
	for _, p := range have {
		diff = append(diff, fmt.Sprintf("%s: not locked, now %s", p.Name, p.Version))
	}
	if len(diff) == 0 {
		return nil
	}
	slices.Sort(diff)
	return &LockError{diff}
}
