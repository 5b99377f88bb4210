package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// Env is what a build uses of the machine that it runs on.
type Env struct {
	Cache     string // kbuild's cache directory
	Firstboot string // the kbuild-firstboot binary to bake
	Force     bool   // replace outputs that exist
	Log       progress.Log
}

// Build carries out a Plan with its Inputs. Outputs appear in the directory out
// all at once when everything is done; a build that fails or is stopped leaves
// nothing there.
func Build(ctx context.Context, p *Plan, in *Inputs, src source.Source, out string, env Env) (err error) {
	// File modes in the image must not depend on the user's umask.
	defer unix.Umask(unix.Umask(0o022))
	// The error of a tool that was killed because ctx has ended says nothing.
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	if _, err := os.Stat(env.Firstboot); err != nil {
		return fmt.Errorf("cannot bake kbuild-firstboot: %w; build it with `make build`, or name it with --firstboot", err)
	}
	started := time.Now()
	osTree, err := base.OS(ctx, base.Config{Cache: env.Cache, Arch: p.Spec.Arch, Lock: in.lock, Log: env.Log})
	if err != nil {
		return err
	}
	tools, err := base.Tools(ctx, base.Config{Cache: env.Cache, Arch: p.Spec.Arch, Log: env.Log})
	if err != nil {
		return err
	}
	key, err := p.cacheKey(env, osTree, tools)
	if err != nil {
		return err
	}
	if upToDate(out, key) {
		env.Log("%s is up to date", out)
		return nil
	}
	if err := checkOut(out, p.Outputs, env.Force); err != nil {
		return err
	}
	programs, err := src.Fetch(ctx, p.Want, osTree.Dir, env.Log)
	if err != nil {
		return err
	}
	// Work beside the outputs, so that they can be renamed into place.
	created := os.Mkdir(out, 0o755) == nil
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(out, ".building-")
	if err != nil {
		return fmt.Errorf("cannot build in %s: %w", out, err)
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(work))
		if err != nil && created {
			os.Remove(out) // it is empty
		}
	}()

	result := filepath.Join(work, "out")
	if err := os.Mkdir(result, 0o755); err != nil {
		return err
	}
	c := contents{bytes: in.content, programs: programs, base: osTree, firstboot: env.Firstboot}
	var m made
	if len(p.Spec.diskFormats()) > 0 {
		if m.disk, m.images, err = p.buildDisk(ctx, work, result, tools, c, in.secureBoot, env); err != nil {
			return err
		}
	}
	if p.Spec.has(ignitionFormat) {
		if m.sysext, m.images, err = p.buildIgnition(ctx, work, result, tools, c, env); err != nil {
			return err
		}
	}
	if err := writeRecords(result, p, in.sign, key, m, osTree); err != nil {
		return err
	}
	if err := moveOutputs(result, out, p.Outputs); err != nil {
		return err
	}
	env.Log("built %s in %s: %s", p.Spec.Version, out, time.Since(started).Round(time.Second))
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
func (p *Plan) buildDisk(ctx context.Context, work, result string, tools base.Tree, c contents, identity *disk.SecureBoot, env Env) (disk.Output, []BakedImage, error) {
	env.Log("assembling the root file system")
	root := filepath.Join(work, "root")
	cp := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", c.base.Dir, root)
	if b, err := cp.CombinedOutput(); err != nil {
		return disk.Output{}, nil, fmt.Errorf("cannot copy the base OS: %w: %s", err, b)
	}
	baked, err := p.fill(ctx, root, p.Tree, images.StoreDir, c, env)
	if err != nil {
		return disk.Output{}, nil, err
	}
	env.Log("writing the disk")
	d, err := disk.Build(ctx, disk.Input{
		Layout: p.layout(), Root: root, Tools: tools, Epoch: p.Spec.Epoch, Cmdline: p.Spec.Cmdline, SecureBoot: identity,
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

// fill writes entries over what is in dir, and the container images to storeDir
// in it.
func (p *Plan) fill(ctx context.Context, dir string, entries []Entry, storeDir string, c contents, env Env) ([]BakedImage, error) {
	if err := writeTree(dir, entries, c); err != nil {
		return nil, err
	}
	store := filepath.Join(dir, storeDir)
	baked, err := writeStore(ctx, c.programs.Images, store)
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
	env.Log("%d images baked, %d MB saved by storing equal files once", len(baked), saved>>20)
	return baked, nil
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
			errs = append(errs, fmt.Errorf("cannot bake %s: the source did not provide it", name))
		}
		delete(have, name)
	}
	for name := range have {
		errs = append(errs, fmt.Errorf("cannot bake %s: it is not in the plan", name))
	}
	return errors.Join(errs...)
}
