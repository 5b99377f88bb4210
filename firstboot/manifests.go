package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// manifestParts are the manifests that are baked into the image, in the order
// of their names, a part for each.
func manifestParts(m *node.Machine, cfg *rest.Config) ([]cluster.Part, error) {
	dir := strings.TrimPrefix(images.BakedManifest, "/")
	entries, err := fs.ReadDir(m.Host.Root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("cannot read the baked manifests: %w", err)
	}
	var parts []cluster.Part
	for _, e := range entries {
		if path.Ext(e.Name()) != ".yaml" {
			continue
		}
		file := path.Join(images.BakedManifest, e.Name())
		text, err := m.Host.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read a baked manifest: %w", err)
		}
		objs, err := cluster.ParseManifest(file, text)
		if err != nil {
			return nil, err
		}
		parts = append(parts, cluster.Part{Name: "addon.manifest." + recordKey(e.Name()), Wants: string(text), Objects: untyped(objs),
			Apply: func(ctx context.Context, before cluster.Before) ([]string, error) {
				return cluster.Apply(ctx, cfg, before, objs)
			}})
	}
	return parts, nil
}

func untyped(objs []cluster.Object) (out []runtime.Object) {
	for _, o := range objs {
		out = append(out, o)
	}
	return out
}

// recordKey turns a file's name into what the key of a ConfigMap may hold.
func recordKey(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			return c
		}
		return '_'
	}, name)
}
