package pull

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Lock fixes image names to digests. The digest is that of the manifest or index
// that the name refers to in the registry, for all platforms. As a file it has one
// line "NAME DIGEST" for each image, sorted; lines that begin with # and empty
// lines are ignored.
type Lock map[string]string

// NewLock locks images as they were pulled.
func NewLock(pulled []Image) Lock {
	l := Lock{}
	for _, i := range pulled {
		l[i.Name] = i.Digest
	}
	return l
}

// ParseLock reads a lock file; file is its name in errors.
func ParseLock(file string, b []byte) (Lock, error) {
	l := Lock{}
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		fail := func(format string, args ...any) (Lock, error) {
			return nil, fmt.Errorf("%s:%d: %s", file, i+1, fmt.Sprintf(format, args...))
		}
		w := strings.Fields(line)
		if len(w) != 2 {
			return fail("want NAME DIGEST, as in registry.k8s.io/pause:3.10.2 sha256:…")
		}
		if full, err := FullName(w[0]); err != nil {
			return fail("%v", err)
		} else if full != w[0] {
			return fail("%s is not a full image name: write %s", w[0], full)
		}
		if h, err := v1.NewHash(w[1]); err != nil || h.Algorithm != "sha256" {
			return fail("%q is not a digest: want sha256: and 64 hexadecimal digits", w[1])
		}
		if l[w[0]] != "" {
			return fail("%s is named twice", w[0])
		}
		l[w[0]] = w[1]
	}
	return l, nil
}

// Bytes is the lock file.
func (l Lock) Bytes() []byte {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&b, "%s %s\n", n, l[n])
	}
	return []byte(b.String())
}
