package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// byHand takes everything from a directory that the user has filled, and nothing
// from the network:
//
//	bin/kubelet, bin/kubectl, and where it is not Debian's the container runtime
//	cni/NAME            CNI plugins
//	images/*.tar        tarballs of docker save, or of OCI layouts
//	images/index.json   or an OCI layout itself
//	SHA256SUMS          optional, as sha256sum writes it; then it names all files used
type byHand struct {
	dir    string
	config Config
	store  store
}

func newByHand(dir string, c Config) (*byHand, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(abs); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("cannot use source dir:%s: the directory does not exist", dir)
	}
	return &byHand{abs, c, c.store()}, nil
}

// piece is a file or image found below the directory.
type piece struct {
	name, path string // path is relative to the directory
	digest     string // of the file, in hex; an image in a layout: of its manifest
	layout     bool   // an image in the layout images/
	ref        string // an image: the name that it is saved under
}

// survey finds every piece that w wants. One error names all that is missing.
func (h *byHand) survey(ctx context.Context, w Want) (programs, imgs []piece, err error) {
	var missing []string
	names := map[string]string{"kubelet": "bin/kubelet", "kubectl": "bin/kubectl"}
	for _, p := range RuntimePrograms(w.Release) {
		names[p] = "bin/" + p
	}
	must := []string{"bridge", "host-local", "loopback", "portmap"}
	if w.CNI == "flannel" {
		must = append(must, "flannel")
	}
	for _, p := range must {
		names["cni/"+p] = "cni/" + p
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, "cni"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the CNI plugins: %w", err)
	}
	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(h.dir, "cni", e.Name())); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			names["cni/"+e.Name()] = "cni/" + e.Name()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch st, err := os.Stat(filepath.Join(h.dir, names[name])); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, fmt.Sprintf("%s: put %s there", names[name], hint(name, w)))
		case err != nil:
			return nil, nil, err
		case !st.Mode().IsRegular():
			return nil, nil, fmt.Errorf("cannot use %s: it is not a regular file", filepath.Join(h.dir, names[name]))
		default:
			programs = append(programs, piece{name: name, path: names[name]})
		}
	}
	refs, err := wanted(w)
	if err != nil {
		return nil, nil, err
	}
	have, err := h.images()
	if err != nil {
		return nil, nil, err
	}
	for _, ref := range refs {
		p, ok := have[ref]
		if !ok { // or under the name that it is served by today
			p, ok = have[images.PullName(ref)]
		}
		if !ok {
			missing = append(missing, fmt.Sprintf("images/: put the image %s there, as made by docker save -o FILE.tar %s", ref, ref))
			continue
		}
		p.name = ref
		imgs = append(imgs, p)
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("cannot build Kubernetes %s from %s: %d things are missing:\n  %s", w.Release.Version, h.dir, len(missing), strings.Join(missing, "\n  "))
	}
	return programs, imgs, h.digest(ctx, programs, imgs)
}

func hint(name string, w Want) string {
	if strings.HasPrefix(name, "cni/") {
		return "the CNI plugin of that name, from cni-plugins-linux-" + w.Arch + "-VERSION.tgz"
	}
	if slices.Contains(RuntimePrograms(w.Release), name) {
		return fmt.Sprintf("the program from containerd-static-%s-linux-%s.tar.gz of %s/%s", containerdVersion[1:], w.Arch, runtimeURL, containerdVersion)
	}
	return fmt.Sprintf("the program from %s/%s/bin/linux/%s/%s", releaseURL, w.Release.Version, w.Arch, name)
}

// images finds the images below images/ by their full names.
func (h *byHand) images() (map[string]piece, error) {
	have := map[string]piece{}
	tars, err := filepath.Glob(filepath.Join(h.dir, "images", "*.tar"))
	if err != nil {
		return nil, err
	}
	for _, t := range tars {
		refs, err := tarIndex(t)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			have[ref] = piece{path: "images/" + filepath.Base(t), ref: ref}
		}
	}
	found, err := layoutImages(filepath.Join(h.dir, "images"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for ref, l := range found {
		have[ref] = piece{path: "images/index.json", ref: ref, layout: true, digest: l.desc.Digest.Hex}
	}
	return have, nil
}

// digest hashes the files and checks them against SHA256SUMS.
func (h *byHand) digest(ctx context.Context, programs, imgs []piece) error {
	const list = "SHA256SUMS"
	text, err := os.ReadFile(filepath.Join(h.dir, list))
	listed := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sums, err := parseSums(text)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(h.dir, list), err)
	}
	seen := map[string]string{}
	for _, pieces := range [][]piece{programs, imgs} {
		for i := range pieces {
			p := &pieces[i]
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if _, ok := seen[p.path]; !ok {
				if seen[p.path], err = fileDigest(filepath.Join(h.dir, p.path)); err != nil {
					return err
				}
				switch want, ok := sums[p.path]; {
				case listed && !ok:
					return fmt.Errorf("cannot trust %s: %s does not list it", filepath.Join(h.dir, p.path), list)
				case listed && want != seen[p.path]:
					return fmt.Errorf("cannot trust %s: its SHA-256 is %s, %s says %s", filepath.Join(h.dir, p.path), seen[p.path], list, want)
				}
			}
			if !p.layout {
				p.digest = seen[p.path]
			}
		}
	}
	return nil
}

// parseSums reads what sha256sum writes: "HEX  NAME" or "HEX *NAME" a line.
func parseSums(text []byte) (map[string]string, error) {
	sums := map[string]string{}
	for n, s := 1, bufio.NewScanner(bytes.NewReader(text)); s.Scan(); n++ {
		if s.Text() == "" {
			continue
		}
		sum, name, ok := strings.Cut(s.Text(), " ")
		if !ok || len(sum) != 64 || len(name) < 2 {
			return nil, fmt.Errorf("line %d: %q: want a SHA-256, two spaces and a file name", n, s.Text())
		}
		sums[filepath.Clean(name[1:])] = strings.ToLower(sum)
	}
	return sums, nil
}

// Resolve names every file and image, with digests.
func (h *byHand) Resolve(ctx context.Context, w Want) ([]Component, error) {
	programs, imgs, err := h.survey(ctx, w)
	if err != nil {
		return nil, err
	}
	var cs []Component
	for _, p := range programs {
		cs = append(cs, Component{Name: p.name, Source: "file " + p.path, Digest: "sha256:" + p.digest})
		if p.name == "kubelet" || p.name == "kubectl" {
			cs[len(cs)-1].Version = w.Release.Version
		}
	}
	for _, p := range imgs {
		c := pulled([]string{p.name})[0]
		c.Source, c.Digest = "file "+p.path, "sha256:"+p.digest
		cs = append(cs, c)
	}
	return cs, nil
}

// Fetch copies every piece into the cache, so that what happens to the
// directory later does not matter.
func (h *byHand) Fetch(ctx context.Context, w Want, _ string, log progress.Log) (Output, error) {
	programs, imgs, err := h.survey(ctx, w)
	if err != nil {
		return Output{}, err
	}
	out := Output{Binaries: map[string]string{}}
	for _, p := range programs {
		name := filepath.Base(p.path)
		dir, err := h.store.entry(ctx, "file", key(name, p.digest), log, func(_ context.Context, dir string) error {
			return copyExact(filepath.Join(h.dir, p.path), filepath.Join(dir, name), p.digest, 0o755)
		})
		if err != nil {
			return Output{}, err
		}
		out.Binaries[p.name] = filepath.Join(dir, name)
	}
	var more []located
	for _, p := range imgs {
		layout := filepath.Join(h.dir, "images")
		if !p.layout {
			layout, err = h.store.entry(ctx, "tarball", key(p.digest), log, func(ctx context.Context, dir string) error {
				log("unpacking %s …", p.path)
				return unpackTarball(ctx, filepath.Join(h.dir, p.path), dir)
			})
			if err != nil {
				return Output{}, err
			}
		}
		found, err := layoutImages(layout)
		if err != nil {
			return Output{}, err
		}
		l, ok := found[p.ref]
		if !ok {
			return Output{}, fmt.Errorf("cannot find the image %s in %s", p.ref, layout)
		}
		l.desc.Annotations = map[string]string{images.RefAnnotation: p.name}
		more = append(more, l)
	}
	out.Images, err = h.store.assemble(ctx, nil, more, w.Arch, h.config.Epoch, log)
	return out, err
}

// copyExact copies a file that must have the digest, so that a file that
// has changed since it was hashed is an error.
func copyExact(from, to, digest string, mode fs.FileMode) error {
	if err := copyFile(from, to, mode); err != nil {
		return err
	}
	if got, err := fileDigest(to); err != nil || got != digest {
		return errors.Join(fmt.Errorf("cannot copy %s: it has changed in the meantime", from), err)
	}
	return nil
}
