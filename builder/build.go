package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// Env is what a build uses of the machine it runs on.
type Env struct {
	Cache     string // kbuild's cache directory
	Firstboot string // the kbuild-firstboot binary to bake
	Force     bool   // replace outputs that exist
	Log       progress.Log
}

// Build carries out a Plan. Outputs appear in Spec.Out all at once when
// everything is done; a build that fails or is stopped leaves nothing there.
func Build(ctx context.Context, p *Plan, src source.Source, env Env) (err error) {
	// Modes in the image are those that are asked for, whoever builds it.
	defer unix.Umask(unix.Umask(0o022))
	// A tool that is killed because ctx has ended says no more than that.
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if _, err := os.Stat(env.Firstboot); err != nil {
		return fmt.Errorf("cannot bake kbuild-firstboot: %w; build it with `make build`, or name it with --firstboot", err)
	}
	lock, err := ReadLock(p.Spec.Lock)
	if err != nil {
		return err
	}
	started := time.Now()
	osTree, err := base.OS(ctx, base.Config{Cache: env.Cache, Arch: p.Spec.Arch, Lock: lock, Log: env.Log})
	if err != nil {
		return err
	}
	tools, err := base.Tools(ctx, base.Config{Cache: env.Cache, Arch: p.Spec.Arch, Log: env.Log})
	if err != nil {
		return err
	}
	inputs, err := p.inputs(env, osTree, tools)
	if err != nil {
		return err
	}
	if upToDate(p.Spec.Out, inputs) {
		env.Log("%s is up to date", p.Spec.Out)
		return nil
	}
	if err := checkOut(p.Spec.Out, p.Outputs, env.Force); err != nil {
		return err
	}
	out, err := src.Fetch(ctx, p.want, env.Log)
	if err != nil {
		return err
	}
	// Work beside the outputs, so that they can be renamed into place.
	created := os.Mkdir(p.Spec.Out, 0o755) == nil
	if err := os.MkdirAll(p.Spec.Out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(p.Spec.Out, ".building-")
	if err != nil {
		return fmt.Errorf("cannot build in %s: %w", p.Spec.Out, err)
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(work))
		if err != nil && created {
			os.Remove(p.Spec.Out) // it is empty
		}
	}()

	result := filepath.Join(work, "out")
	if err := os.Mkdir(result, 0o755); err != nil {
		return err
	}
	var m made
	if len(p.Spec.diskFormats()) > 0 {
		if m.disk, m.images, err = p.buildDisk(ctx, work, result, osTree, tools, out, env); err != nil {
			return err
		}
	}
	if p.Spec.has(ignitionFormat) {
		if m.sysext, m.images, err = p.buildIgnition(ctx, work, result, osTree, tools, out, env); err != nil {
			return err
		}
	}
	if err := writeRecords(result, p, inputs, m, osTree); err != nil {
		return err
	}
	if err := moveOutputs(result, p.Spec.Out, p.Outputs); err != nil {
		return err
	}
	env.Log("built %s in %s: %s", p.Spec.Version, p.Spec.Out, time.Since(started).Round(time.Second))
	return nil
}

// made is what was built. The images are the same in a disk and in a system
// extension.
type made struct {
	disk   disk.Output
	sysext disk.ExtensionOutput
	images []BakedImage
}

// buildDisk makes the disk in its formats, and a slot's update files, in the
// directory result.
func (p *Plan) buildDisk(ctx context.Context, work, result string, osTree, tools base.Tree, out source.Output, env Env) (disk.Output, []BakedImage, error) {
	env.Log("assembling the root file system")
	root := filepath.Join(work, "root")
	baked, err := p.assemble(ctx, root, osTree, out, env)
	if err != nil {
		return disk.Output{}, nil, err
	}
	env.Log("writing the disk")
	var identity *disk.SecureBoot
	if s := p.Spec; s.SecureBootKey != "" {
		identity = &disk.SecureBoot{Key: s.SecureBootKey, Cert: s.SecureBootCert}
	}
	d, err := disk.Build(ctx, disk.Input{
		SecureBoot: identity,

		Layout: p.layout(), Root: root, Tools: tools, Epoch: p.Spec.Epoch, Cmdline: p.Spec.Cmdline,
		Formats: p.Spec.diskFormats(), Out: result, Name: "disk", Log: env.Log,
	})
	if err != nil {
		return d, nil, err
	}
	for from, what := range map[string]string{d.Root: images.UpdateRoot, d.Verity: images.UpdateVerity, d.UKI: images.UpdateUKI} {
		if err := os.Rename(from, filepath.Join(result, images.UpdateName(p.Spec.Version, d.RootHash, what))); err != nil {
			return d, nil, err
		}
	}
	if err := p.writeUpdate(result, d.RootHash); err != nil {
		return d, nil, err
	}
	return d, baked, os.WriteFile(filepath.Join(result, "root.roothash"), []byte(d.RootHash+"\n"), 0o644)
}

// assemble makes the image's root at dir: the base OS, what kbuild adds, the
// binaries and the image store.
func (p *Plan) assemble(ctx context.Context, dir string, osTree base.Tree, out source.Output, env Env) ([]BakedImage, error) {
	cp := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", osTree.Dir, dir)
	if b, err := cp.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot copy the base OS: %w: %s", err, b)
	}
	t, err := p.tree(&out)
	if err != nil {
		return nil, err
	}
	baked, err := p.fill(ctx, dir, t, images.StoreDir, out, env)
	if err != nil {
		return nil, err
	}
	return baked, nameImage(dir, p.Spec.Version)
}

// fill writes a tree to dir, completed by the programs that were built, and the
// container images to storeDir in it.
func (p *Plan) fill(ctx context.Context, dir string, t *tree, storeDir string, out source.Output, env Env) ([]BakedImage, error) {
	fb := t.entries["/usr/bin/kbuild-firstboot"]
	fb.file = env.Firstboot
	t.entries["/usr/bin/kbuild-firstboot"] = fb
	if err := placePlugins(t, out.Binaries); err != nil {
		return nil, err
	}
	if err := t.write(dir); err != nil {
		return nil, err
	}
	store := filepath.Join(dir, storeDir)
	baked, err := writeStore(ctx, out.Images, store)
	if err != nil {
		return nil, err
	}
	if err := sameImages(p.Images, baked); err != nil {
		return nil, err
	}
	saved, err := storeOnce(store, filepath.Join(dir, "usr/bin"), filepath.Join(dir, "usr/lib/kbuild/cni"))
	if err != nil {
		return nil, err
	}
	env.Log("%d images baked, %d MB stored once instead of again", len(baked), saved>>20)
	return baked, nil
}

// nameImage makes the image say what it is in os-release, where boot menu and
// systemd-sysupdate look.
func nameImage(root, version string) error {
	file := filepath.Join(root, "usr/lib/os-release")
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot name the image: %w", err)
	}
	return os.WriteFile(file, disk.OSRelease(b, version), 0o644)
}

// placePlugins bakes the CNI plugins, and has tmpfiles link each into the
// directory of the node that pod networks add their own to.
func placePlugins(t *tree, binaries map[string]string) error {
	links := "# Baked CNI plugins, where the runtime and pod networks look for them.\n"
	for _, name := range slices.Sorted(maps.Keys(binaries)) {
		plugin, ok := strings.CutPrefix(name, "cni/")
		if !ok {
			continue
		}
		baked := "/usr/lib/kbuild/cni/" + plugin
		if err := t.place(baked, entry{owner: "cni plugins", mode: 0o755, file: binaries[name]}); err != nil {
			return err
		}
		links += "L+ /var/lib/kbuild/opt-cni/bin/" + plugin + " - - - - " + baked + "\n"
	}
	return t.place("/usr/lib/tmpfiles.d/kbuild-plugins.conf", entry{owner: "cni plugins", mode: 0o644, data: []byte(links)})
}

// sameImages refuses an image whose store is not what the Plan said.
func sameImages(want []string, got []BakedImage) error {
	have := map[string]bool{}
	for _, b := range got {
		have[b.Name] = true
	}
	var errs []error
	for _, name := range want {
		if !have[name] {
			errs = append(errs, fmt.Errorf("cannot bake %s: the source did not make it", name))
		}
		delete(have, name)
	}
	for name := range have {
		errs = append(errs, fmt.Errorf("cannot bake %s: the plan does not name it", name))
	}
	return errors.Join(errs...)
}

func checkOut(out string, files []string, force bool) error {
	if out == "" {
		return errors.New("cannot build: no output directory given; say --out DIR")
	}
	there, err := existing(out, files)
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", out, err)
	}
	if len(there) > 0 && !force {
		return fmt.Errorf("%s is there already; say --force to replace it, or another --out", filepath.Join(out, there[0]))
	}
	// What a killed build left behind is of no use to anyone.
	old, _ := filepath.Glob(filepath.Join(out, ".building-*"))
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// existing lists what is in dir of the outputs, in order; of no directory it is
// nothing.
func existing(dir string, outputs []string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if slices.ContainsFunc(outputs, func(o string) bool {
			before, after, some := strings.Cut(o, anyHash)
			return e.Name() == o || some && strings.HasPrefix(e.Name(), before) && strings.HasSuffix(e.Name(), after)
		}) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// moveOutputs renames the outputs into place, SHA256SUMS last: whoever finds
// it and finds it true has the whole build. Those of an earlier one go.
func moveOutputs(from, to string, outputs []string) error {
	if err := os.Remove(filepath.Join(to, "SHA256SUMS")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := existing(from, outputs)
	if err != nil {
		return err
	}
	old, err := existing(to, outputs)
	if err != nil {
		return err
	}
	for _, f := range old {
		if !slices.Contains(files, f) {
			if err := os.Remove(filepath.Join(to, f)); err != nil {
				return fmt.Errorf("cannot remove the output of an earlier build: %w", err)
			}
		}
	}
	for _, f := range files {
		if f == "SHA256SUMS" {
			continue
		}
		if err := os.Rename(filepath.Join(from, f), filepath.Join(to, f)); err != nil {
			return fmt.Errorf("cannot move output into place: %w", err)
		}
	}
	return os.Rename(filepath.Join(from, "SHA256SUMS"), filepath.Join(to, "SHA256SUMS"))
}

// ReadLock reads the packages of a manifest.json; nil for no lock.
func ReadLock(file string) ([]base.Package, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read --lock: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("cannot read --lock %s: %w; it should be the manifest.json of an image", file, err)
	}
	if len(m.Packages) == 0 {
		return nil, fmt.Errorf("cannot use --lock %s: it names no packages; it should be the manifest.json of an image", file)
	}
	return m.Packages, nil
}
