package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/images/pull"
)

// pulled are the components for images from registries.
func pulled(refs []string) []Component {
	var cs []Component
	for _, ref := range refs {
		c := Component{Name: ref, Source: "registry " + host(images.PullName(ref)), Image: ref}
		if name, digest, ok := strings.Cut(ref, "@"); ok {
			c.Digest, ref = digest, name
		}
		_, c.Version = images.SplitName(ref)
		cs = append(cs, c)
	}
	return cs
}

// host is the registry of an image's name: its first part, if that looks like
// a host, else Docker's.
func host(ref string) string {
	first, _, ok := strings.Cut(ref, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first
	}
	return "docker.io"
}

// FullNames are refs as container runtimes store them, sorted, each once.
func FullNames(refs []string) ([]string, error) {
	var full []string
	for _, ref := range refs {
		f, err := pull.FullName(ref)
		if err != nil {
			return nil, err
		}
		full = append(full, f)
	}
	slices.Sort(full)
	return slices.Compact(full), nil
}

func (c Config) store() store { return store{filepath.Join(c.Cache, "source")} }

// pull copies images from their registries into a layout that is kept, so that an
// interrupted pull resumes.
func (c Config) pull(ctx context.Context, s store, refs []string, arch string, log progress.Log) ([]located, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	if c.Pull == nil {
		return nil, fmt.Errorf("cannot pull %s: this build has no access to registries", strings.Join(refs, ", "))
	}
	refs, err := FullNames(refs)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "pulled", key(refs, arch))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot use the cache: %w", err)
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if whole(dir, refs) {
		return pick(dir, refs)
	}
	log("pulling %d images …", len(refs))
	if err := c.Pull(ctx, refs, arch, dir); err != nil {
		return nil, fmt.Errorf("cannot pull images: %w", err)
	}
	return pick(dir, refs)
}

// whole says whether all images are in a layout with every blob of theirs: a
// cache that was carried to a place without network is enough there.
func whole(dir string, refs []string) bool {
	found, err := layoutImages(dir)
	if err != nil {
		return false
	}
	for _, ref := range refs {
		if l, ok := found[ref]; !ok || checkImage(dir, l.desc) != nil {
			return false
		}
	}
	return true
}

// pick finds the images in a layout.
func pick(dir string, refs []string) ([]located, error) {
	found, err := layoutImages(dir)
	if err != nil {
		return nil, err
	}
	var imgs []located
	for _, ref := range refs {
		l, ok := found[ref]
		if !ok {
			return nil, fmt.Errorf("cannot pull %s: it is missing after the pull", ref)
		}
		imgs = append(imgs, l)
	}
	return imgs, nil
}
