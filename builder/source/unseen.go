package source

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// Lookup is images.Lookup, and knows one thing more: of an unseen patch release of
// a known minor it reads the constants (versions of etcd, CoreDNS, pause) from that
// release's own module, which Go's checksum database vouches for. What does not
// fit the minor release is an error.
func Lookup(ctx context.Context, version string) (images.Release, error) {
	r, err := images.Lookup(version)
	unseen, ok := errors.AsType[images.UnseenPatch](err)
	if !ok {
		return r, err
	}
	if r, err = images.Assume(version); err != nil {
		return r, err
	}
	m, err := download(ctx, "k8s.io/kubernetes", unseen.Version, "")
	if err != nil {
		return r, fmt.Errorf("%w, and its module cannot be read: %w", unseen, err)
	}
	c, err := readConstants(filepath.Join(m.Dir, "cmd/kubeadm/app"), r)
	if err != nil {
		return r, fmt.Errorf("cannot read what Kubernetes %s is made of: %w", unseen.Version, err)
	}
	return r.WithConstants(c)
}

// readConstants reads them from kubeadm's sources of a release like r.
func readConstants(dir string, r images.Release) (c images.Constants, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "constants/constants.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		return c, err
	}
	defaults, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "apis/kubeadm", r.ConfigAPI, "defaults.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		return c, err
	}
	var missing []string
	text := func(f *ast.File, name string) string {
		s, ok := stringOf(value(f, name))
		if !ok {
			missing = append(missing, name)
		}
		return s
	}
	c = images.Constants{
		Etcd: text(f, "DefaultEtcdVersion"), ExternalEtcd: text(f, "MinExternalEtcdVersion"),
		CoreDNS: text(f, "CoreDNSVersion"), Pause: text(f, "PauseVersion"), Registry: text(defaults, "DefaultImageRepository"),
	}
	tags := etcdTags(value(f, "SupportedEtcdVersion"), r.Minor())
	if len(tags) == 0 {
		missing = append(missing, "SupportedEtcdVersion")
	} else {
		nearest := min(max(r.Minor()-1, slices.Min(slices.Collect(maps.Keys(tags)))), slices.Max(slices.Collect(maps.Keys(tags))))
		c.EtcdBefore = tags[nearest]
	}
	if len(missing) > 0 {
		err = fmt.Errorf("its kubeadm has no constant %s", strings.Join(missing, ", "))
	}
	return c, err
}

// value is what a constant or variable of f is declared to be; nil if there is
// none of that name.
func value(f *ast.File, name string) (v ast.Expr) {
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.ValueSpec); ok {
			for i, id := range s.Names {
				if id.Name == name && i < len(s.Values) {
					v = s.Values[i]
				}
			}
		}
		return v == nil
	})
	return v
}

func stringOf(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// etcdTags reads a map from minors to etcd's tags. A minor is a number, or one
// relative to kubeadm's own: uint8(getSkewedKubernetesVersion(-1).Minor()).
func etcdTags(e ast.Expr, own int) map[int]string {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	tags := map[int]string{}
	for _, el := range lit.Elts {
		kv, ok := el.(*ast.KeyValueExpr)
		if !ok {
			return nil
		}
		tag, ok := stringOf(kv.Value)
		if !ok {
			return nil
		}
		minor, relative, found := 0, false, false
		sign := 1
		ast.Inspect(kv.Key, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "getSkewedKubernetesVersion" {
					relative = true
				}
			case *ast.UnaryExpr:
				if n.Op == token.SUB {
					sign = -1
				}
			case *ast.BasicLit:
				var err error
				minor, err = strconv.Atoi(n.Value)
				found = err == nil
			}
			return true
		})
		if !found {
			return nil
		}
		if minor *= sign; relative {
			minor += own
		}
		tags[minor] = tag
	}
	return tags
}
