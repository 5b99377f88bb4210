package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/progress"
)

// ExtensionInput is what a system extension image is made of.
type ExtensionInput struct {
	Layout
	Root  string       // the finished root directory, with nothing but usr; only read
	Tools base.Tree    // of base.Tools
	Epoch time.Time    // SOURCE_DATE_EPOCH: the time of every file in the outputs
	Out   string       // directory for the outputs; must exist
	Name  string       // outputs are called NAME.raw and NAME.roothash
	Log   progress.Log // what is happening, in lines for people
}

// ExtensionOutput is what Extension has made.
type ExtensionOutput struct {
	Image, RootHashFile string // paths
	RootHash            string // in hex
	Partitions          []Partition
}

// ExtensionPlan returns the table of a system extension image: a discoverable
// disk image (DDI, UAPI Group) of a root and its hashes. Sizes are those of
// their contents, which are not known yet.
func ExtensionPlan(l Layout) []Partition {
	return []Partition{
		{1, rootLabel(l.Version), typeRoot, "", "root hash, first half", 0, false, "erofs", "image"},
		{2, verityLabel(l.Version), typeVerity, "", "root hash, second half", 0, false, "verity", "image"},
	}
}

// Extension packs Root as a system extension image that systemd-sysext(8)
// merges, verified if its root hash is beside it. It needs root, also of
// a user namespace. Same root, tools, seed and epoch give the same bytes.
func Extension(ctx context.Context, in ExtensionInput) (ExtensionOutput, error) {
	out, err := extension(ctx, in)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return ExtensionOutput{}, fmt.Errorf("cannot make the system extension: %w", err)
	}
	return out, nil
}

func extension(ctx context.Context, in ExtensionInput) (ExtensionOutput, error) {
	out := ExtensionOutput{Image: filepath.Join(in.Out, in.Name+".raw"), RootHashFile: filepath.Join(in.Out, in.Name+".roothash")}
	if err := CheckVersion(in.Version); err != nil {
		return out, err
	}
	for _, f := range []string{out.Image, out.RootHashFile} {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			return out, errors.Join(fmt.Errorf("%s exists already", f), err)
		}
	}
	work, err := os.MkdirTemp(in.Out, ".sysext-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(work)
	p := pack{ids: in.Layout, root: in.Root, tools: in.Tools, epoch: in.Epoch, work: work}

	begin := time.Now()
	if err := p.makeErofs(ctx, "kbuild-sysext"); err != nil {
		return out, err
	}
	if out.RootHash, err = p.makeHashes(ctx); err != nil {
		return out, err
	}
	if out.Partitions, err = SetRootHash(ExtensionPlan(in.Layout), out.RootHash); err != nil {
		return out, err
	}
	sources := map[string]string{"erofs": "root.erofs", "verity": "root.verity"}
	for i, part := range out.Partitions {
		info, err := os.Stat(p.file(sources[part.Format]))
		if err != nil {
			return out, err
		}
		out.Partitions[i].Size = uint64(info.Size()) // blocks of 4096 both, as systemd-repart's grain
	}
	if err := p.writeTable(ctx, "sysext.raw", out.Partitions, sources); err != nil {
		return out, err
	}
	if err := os.WriteFile(p.file("roothash"), []byte(out.RootHash), 0o644); err != nil {
		return out, err
	}
	if err := p.publish(in.Out, map[string]string{"sysext.raw": out.Image, "roothash": out.RootHashFile}); err != nil {
		return out, err
	}
	in.Log("made the system extension in %.1fs", time.Since(begin).Seconds())
	return out, nil
}
