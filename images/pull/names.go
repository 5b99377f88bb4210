package pull

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kbuild/kbuild/images"
)

// FullName is ref as container runtimes store it: with registry and tag (or
// digest, which takes precedence over a tag): "busybox" is
// "docker.io/library/busybox:latest".
func FullName(ref string) (string, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("cannot use image name %q: %w", ref, err)
	}
	return strings.Replace(r.Name(), name.DefaultRegistry+"/", "docker.io/", 1), nil
}

// Mirror says that images whose name begins with From are pulled from To
// instead. Both are a registry with or without a path: "registry.k8s.io",
// "mirror.example.com:5000/k8s".
type Mirror struct{ From, To string }

// ParseMirror reads FROM=TO.
func ParseMirror(s string) (Mirror, error) {
	from, to, ok := strings.Cut(s, "=")
	m := Mirror{strings.Trim(from, "/"), strings.Trim(to, "/")}
	if !ok || m.From == "" || m.To == "" {
		return m, fmt.Errorf("cannot use mirror %q: write FROM=TO, as in registry.k8s.io=mirror.example.com:5000/k8s", s)
	}
	for _, p := range []string{m.From, m.To} {
		if _, err := name.NewRepository(p + "/x"); err != nil || strings.Contains(p, "://") {
			return m, fmt.Errorf("cannot use mirror %q: %q is not HOST[:PORT][/PATH]; write it without scheme", s, p)
		}
	}
	return m, nil
}

// sources are the references to pull full from, in the order to try them. The
// mirrors of the longest matching From replace the registry; it is tried, too,
// only if it is listed as its own mirror. Images of a frozen registry are pulled
// from the one that serves them today, unless they have a mirror of their own.
func sources(full string, mirrors []Mirror) ([]name.Reference, error) {
	at := mirrored(full, mirrors)
	if at == nil {
		today := images.PullName(full)
		if at = mirrored(today, mirrors); at == nil {
			at = []string{today}
		}
	}
	var refs []name.Reference
	for _, a := range at {
		r, err := name.ParseReference(a)
		if err != nil {
			return nil, fmt.Errorf("cannot pull %s from %q: %w", full, a, err)
		}
		refs = append(refs, r)
	}
	return refs, nil
}

func mirrored(full string, mirrors []Mirror) []string {
	var at []string
	longest := 0
	for _, m := range mirrors {
		rest, ok := strings.CutPrefix(full, m.From)
		if !ok || !strings.HasPrefix(rest, "/") || len(m.From) < longest {
			continue
		}
		if len(m.From) > longest {
			longest, at = len(m.From), nil
		}
		at = append(at, m.To+rest)
	}
	return at
}
