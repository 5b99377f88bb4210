// Package pull copies container images from their registries into an OCI
// image layout, layers and all.
//
// What always holds: a blob is in the layout only when its digest was
// verified; an image is in index.json only when all its blobs are. A pull may
// be stopped at any time, and the next one resumes where it stopped, to the byte
// if the registry allows it. Manifests are kept byte for byte, so that digests are
// those of the registry.
package pull

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kbuild/kbuild/images"
)

// Options say what to pull, and from where to where.
type Options struct {
	Images   []string // image names; see FullName
	Dir      string   // the OCI image layout to write; made if it is not there
	Platform string   // "linux/amd64"; one image of a multi-platform index is taken
	Mirrors  []Mirror
	Lock     Lock        // if not nil, the digest that each image must have
	Parallel int         // transfers at a time; 0 is 4
	Report   func(Event) // called for each event, one call at a time; may be nil

	Keychain  authn.Keychain    // nil: that of Docker's config
	Transport http.RoundTripper // nil: one with timeouts and the environment's proxies
	Retry     Retry             // zero: DefaultRetry
	Stall     time.Duration     // a transfer without a byte for so long has failed; 0 is a minute
	// Wait waits between tries; nil sleeps.
	Wait func(context.Context, time.Duration) error
}

// Image is an image in the layout.
type Image struct {
	Name     string `json:"name"`     // its full name, as in the layout's index
	Digest   string `json:"digest"`   // of what the name stands for in the registry: an index, or the manifest itself
	Manifest string `json:"manifest"` // digest of the platform's manifest, which is in the layout
	Size     int64  `json:"size"`     // of manifest, config and layers, in bytes
	From     string `json:"from"`     // the name that it was pulled by
}

// puller is one pull.
type puller struct {
	Options
	platform v1.Platform
	store    *store
	regs     *registries
	reports  sync.Mutex
	blobs    keyed
}

// Pull pulls the images and returns them sorted by name. When it fails, the
// layout's index is as it was before, and what was transferred is kept for the
// next time.
func Pull(ctx context.Context, o Options) ([]Image, error) {
	p, names, err := newPuller(o)
	if err != nil {
		return nil, err
	}
	if p.store, err = openStore(o.Dir); err != nil {
		return nil, err
	}
	defer p.store.close()

	todo, err := p.resolveAll(ctx, names)
	if err != nil {
		return nil, err
	}
	if err := p.transferAll(ctx, todo); err != nil {
		return nil, err
	}
	var out []Image
	var index []v1.Descriptor
	for _, t := range todo {
		if err := p.store.put(t.desc.Digest, t.raw); err != nil {
			return nil, err
		}
		index = append(index, t.desc)
		out = append(out, t.Image)
	}
	return out, p.store.finish(index)
}

func newPuller(o Options) (*puller, []string, error) {
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, nil, err
	}
	if o.Parallel == 0 {
		o.Parallel = 4
	}
	if o.Parallel < 0 {
		return nil, nil, fmt.Errorf("cannot run %d parallel transfers", o.Parallel)
	}
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Retry == (Retry{}) {
		o.Retry = DefaultRetry()
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Wait == nil {
		o.Wait = sleep
	}
	names := map[string]bool{}
	for _, i := range o.Images {
		n, err := FullName(i)
		if err != nil {
			return nil, nil, err
		}
		if _, ok := o.Lock[n]; o.Lock != nil && !ok {
			return nil, nil, fmt.Errorf("cannot pull %s: it is not in the lock file", n)
		}
		names[n] = true
	}
	p := &puller{Options: o, platform: platform, regs: newRegistries(o.Transport, o.Keychain, o.Stall)}
	return p, slices.Sorted(maps.Keys(names)), nil
}

// CheckPlatform refuses what is not a platform.
func CheckPlatform(s string) error {
	_, err := parsePlatform(s)
	return err
}

func parsePlatform(s string) (v1.Platform, error) {
	p, err := v1.ParsePlatform(s)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, fmt.Errorf("cannot use platform %q: write OS/ARCH, as in linux/amd64", s)
	}
	return *p, nil
}

// report passes events on, one at a time.
func (p *puller) report(e Event) {
	if p.Report != nil {
		p.reports.Lock()
		defer p.reports.Unlock()
		p.Report(e)
	}
}

// resolveAll resolves each name to a manifest. Its error has those of all names.
func (p *puller) resolveAll(ctx context.Context, names []string) ([]*target, error) {
	todo, errs := make([]*target, len(names)), make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(p.Parallel)
	for i, name := range names {
		g.Go(func() error {
			if todo[i], errs[i] = p.resolve(ctx, name); errs[i] != nil {
				errs[i] = fmt.Errorf("cannot pull %s: %w", name, errs[i])
				return nil
			}
			p.report(Event{Kind: Resolved, Image: name, Blobs: todo[i].blobs})
			return nil
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return todo, errors.Join(errs...)
}

// transferAll fetches the blobs, each once, and reports each complete image.
func (p *puller) transferAll(ctx context.Context, todo []*target) error {
	owner := map[v1.Hash]*target{} // the first image that has the blob
	missing := make([]int, len(todo))
	var order []Blob
	for i, t := range todo {
		missing[i] = len(t.blobs)
		for _, b := range t.blobs {
			first := owner[b.Digest]
			if first == nil {
				owner[b.Digest] = t
				order = append(order, b)
			} else if !slices.Contains(first.blobs, b) {
				return fmt.Errorf("cannot pull %s: its manifest gives blob %s a size of %d, that of %s another", t.Name, b.Digest, b.Size, first.Name)
			}
		}
	}
	present, err := p.present(ctx, order)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	whole := func(b Blob) {
		mu.Lock()
		defer mu.Unlock()
		for i, t := range todo {
			if slices.Contains(t.blobs, b) {
				if missing[i]--; missing[i] == 0 {
					p.report(Event{Kind: Done, Image: t.Name, Digest: t.desc.Digest})
				}
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.Parallel)
	for i, b := range order {
		if present[i] {
			p.report(Event{Kind: Bytes, Digest: b.Digest, Bytes: b.Size})
			whole(b)
			continue
		}
		g.Go(func() error {
			t := owner[b.Digest]
			if err := p.transfer(ctx, t, b); err != nil {
				return fmt.Errorf("cannot pull %s: %w", t.Name, err)
			}
			whole(b)
			return nil
		})
	}
	return g.Wait()
}

// present says which blobs are there already, and refuses to begin if there is not
// enough space for the others.
func (p *puller) present(ctx context.Context, blobs []Blob) ([]bool, error) {
	there := make([]bool, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.Parallel)
	for i, b := range blobs {
		g.Go(func() (err error) {
			there[i], err = p.store.has(ctx, b.Digest, b.Size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var need int64
	for i, b := range blobs {
		if !there[i] {
			need += max(0, b.Size-p.store.begun(b.Digest))
		}
	}
	free, err := p.store.free()
	if err != nil {
		return nil, err
	}
	if need > free {
		return nil, fmt.Errorf("cannot pull into %s: %s are needed and %s are free", p.Dir, size(need), size(free))
	}
	return there, nil
}

// describe fills in the image's entry in the layout's index.
func (t *target) describe(name string, platform v1.Platform) {
	t.desc.Annotations = map[string]string{images.RefAnnotation: name}
	t.desc.Platform = &platform
	t.Name = name
	t.Manifest = t.desc.Digest.String()
	t.Size = t.desc.Size
	for _, b := range t.blobs {
		t.Size += b.Size
	}
}

// size is n bytes for people.
func size(n int64) string {
	for _, u := range strings.Fields("B kB MB") {
		if n < 10_000 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n /= 1000
	}
	return fmt.Sprintf("%d GB", n)
}
