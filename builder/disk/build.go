package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/templates"
)

// Input is what a disk is made of.
type Input struct {
	Layout
	Root      string       // the finished root directory; only read
	Tools     base.Tree    // of base.Tools
	Epoch     time.Time    // SOURCE_DATE_EPOCH: the time of every file in the outputs
	Cmdline   []string     // kernel parameters after those of Cmdline
	Formats   []string     // of the whole disk: "raw", "qcow2"
	Out       string       // directory for the outputs; must exist
	Name      string       // outputs are called NAME.raw, NAME.qcow2, NAME.root.erofs, NAME.root.verity, NAME.efi
	Overwrite bool         // replace outputs that exist; otherwise they are an error
	Log       progress.Log // what is happening, in lines for people; may be nil
	// SecureBoot signs the boot loader and the unified kernel image; nil leaves
	// them as they are.
	SecureBoot *SecureBoot
}

// SecureBoot is the identity that a machine's firmware trusts: files with an
// X.509 certificate and its private key, PEM.
type SecureBoot struct{ Key, Cert string }

// Output is what Build has made. Paths are empty for formats that were not
// asked for.
type Output struct {
	Raw, QCOW2        string // the disk
	Root, Verity, UKI string // a slot's update files
	RootHash          string // in hex
	Kernel            string // version
	Cmdline           string // in the UKI
	DiskGUID          string
	Partitions        []Partition // as planned, with the UUIDs of slot A
}

// Cmdline returns the kernel parameters of an image, without the root hash,
// which is put before them.
func Cmdline(extra []string) []string {
	return append([]string{
		"root=/dev/mapper/root", "rootfstype=erofs", "ro",
		// A bad block of the root reboots the machine, so that boot counting
		// falls back to the other slot.
		"systemd.verity_root_options=panic-on-corruption", "panic=10",
		// A power cut while a slot is renamed can damage the first of the two
		// partition tables; then the kernel uses the other.
		"gpt",
		// Only what is configured is mounted; fsck must not ask questions.
		"systemd.gpt_auto=no", "fsck.repair=yes", "systemd.firstboot=no",
		"loglevel=4", "systemd.show_status=auto", "console=tty0", "console=ttyS0,115200",
	}, extra...)
}

// Build makes the outputs. It needs root, also of a user namespace. When ctx
// ends, or on an error, nothing is left in Out.
func Build(ctx context.Context, in Input) (Output, error) {
	out, err := build(ctx, in)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Output{}, fmt.Errorf("cannot make the disk: %w", err)
	}
	return out, nil
}

func build(ctx context.Context, in Input) (Output, error) {
	if in.Log == nil {
		in.Log = func(string, ...any) {}
	}
	files, err := check(in)
	if err != nil {
		return Output{}, err
	}
	kernel, err := findKernel(in.Root)
	if err != nil {
		return Output{}, err
	}
	work, err := os.MkdirTemp(in.Out, ".disk-")
	if err != nil {
		return Output{}, err
	}
	defer os.RemoveAll(work)
	b := builder{Input: in, pack: pack{ids: in.Layout, root: in.Root, tools: in.Tools, epoch: in.Epoch, work: work, binds: in.SecureBoot.binds()}, kernel: kernel}

	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"root file system", b.makeRoot},
		{"verity hashes", b.makeVerity},
		{"initrd", b.makeInitrd},
		{"unified kernel image", b.makeUKI},
		{"EFI system partition", b.makeESP},
		{"partitions", b.makeDisk},
		{"disk formats", b.convert},
	} {
		begin := time.Now()
		if err := step.do(ctx); err != nil {
			return Output{}, fmt.Errorf("%s: %w", step.name, err)
		}
		in.Log("made the %s in %.1fs", step.name, time.Since(begin).Seconds())
	}
	if err := b.publish(in.Out, files); err != nil {
		return Output{}, err
	}
	plan, err := SetRootHash(Plan(in.Layout), b.rootHash)
	if err != nil {
		return Output{}, err
	}
	return Output{
		Raw: files["disk.raw"], QCOW2: files["disk.qcow2"],
		Root: files["root.erofs"], Verity: files["root.verity"], UKI: files["uki.efi"],
		RootHash: b.rootHash, Kernel: kernel, Cmdline: b.cmdline, DiskGUID: in.DiskGUID(), Partitions: plan,
	}, nil
}

// builder is one run of Build.
type builder struct {
	Input
	pack            // works in a temporary directory in Out
	kernel   string // version
	rootHash string // set by makeVerity
	cmdline  string // set by makeUKI
}

// CheckCmdline refuses words that cannot be added to the kernel's command line.
func CheckCmdline(words []string) error {
	for _, w := range words {
		if strings.HasPrefix(w, "roothash=") || strings.ContainsAny(w, "\n\x00") {
			return fmt.Errorf("kernel parameter %q cannot be set: it has a line break, or is the root hash, which kbuild sets", w)
		}
	}
	return nil
}

// check finds what is wrong with the input before any work, and returns where
// each file of the work directory goes.
func check(in Input) (map[string]string, error) {
	if err := CheckVersion(in.Version); err != nil {
		return nil, err
	}
	if in.Name == "" || strings.ContainsAny(in.Name, "/\x00") {
		return nil, fmt.Errorf("output name %q is empty or has a slash", in.Name)
	}
	if in.Epoch.Year() < 1980 || in.Epoch.Year() > 2100 {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH %d is %s, but a FAT file system needs a time between 1980 and 2100", in.Epoch.Unix(), in.Epoch.UTC().Format(time.DateOnly))
	}
	if err := CheckCmdline(in.Cmdline); err != nil {
		return nil, err
	}
	path := func(suffix string) string { return filepath.Join(in.Out, in.Name+suffix) }
	files := map[string]string{"root.erofs": path(".root.erofs"), "root.verity": path(".root.verity"), "uki.efi": path(".efi")}
	for _, f := range in.Formats {
		if f != "raw" && f != "qcow2" {
			return nil, fmt.Errorf("unknown disk format %q: use raw or qcow2", f)
		}
		files["disk."+f] = path("." + f)
	}
	for _, file := range files {
		if _, err := os.Lstat(file); err == nil && !in.Overwrite {
			return nil, fmt.Errorf("%s exists already: remove it, or choose another output directory", file)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return files, nil
}

// findKernel returns the version of the one kernel in the root.
func findKernel(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*/vmlinuz"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s must hold one usr/lib/modules/VERSION/vmlinuz, but holds %d", root, len(found))
	}
	return filepath.Base(filepath.Dir(found[0])), nil
}

func (b *builder) makeInitrd(ctx context.Context) error {
	a, err := makeInitrd(ctx, b.Input.Root, b.kernel, templates.Initrd(), b.work)
	if err != nil {
		return err
	}
	f, err := os.Create(b.file("initrd.cpio"))
	if err != nil {
		return err
	}
	err = a.writeCPIO(f, b.Epoch.Unix())
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Single-threaded, because zstd's output depends on whether it splits.
	// Level 9 of 28 MB: 10.8 MB in half a second; 19 takes 15 s for 1.1 MB less.
	return b.run(ctx, "zstd", "--quiet", "--rm", "--single-thread", "-9", "/tmp/work/initrd.cpio", "-o", "/tmp/work/initrd.zst")
}

// syncFile brings a finished file to the disk and makes it readable by all.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), os.Chmod(name, 0o644))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
