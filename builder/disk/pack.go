package disk

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kbuild/kbuild/builder/base"
)

// pack turns a root directory into a read-only file system and its dm-verity
// hashes. Both a slot of the disk and a system extension are made of these.
type pack struct {
	ids   Layout // identifiers and salts derive from its seed
	root  string // the finished root directory; only read
	tools base.Tree
	epoch time.Time
	work  string      // directory for root.erofs, root.verity and intermediate files
	binds []base.Bind // what the tools see besides
}

func (p pack) file(name string) string { return filepath.Join(p.work, name) }

// run runs a program of the tools tree, which sees the root at /tmp/root and
// the work directory at /tmp/work.
func (p pack) run(ctx context.Context, name string, args ...string) error {
	_, err := p.output(ctx, name, args...)
	return err
}

func (p pack) output(ctx context.Context, name string, args ...string) (string, error) {
	binds := append([]base.Bind{{Name: "root", Dir: p.root}, {Name: "work", Dir: p.work, Writable: true}}, p.binds...)
	cmd := p.tools.Command(ctx, binds,
		[]string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", p.epoch.Unix()), "MTOOLS_SKIP_CHECK=1"}, name, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stdout.String()+stderr.String()), "\n")
		hint := ""
		if strings.Contains(stdout.String()+stderr.String(), "No space left on device") {
			hint = " (make room in " + filepath.Dir(p.work) + ")"
		}
		return "", fmt.Errorf("%s: %w%s:\n  %s", name, err, hint, strings.Join(lines[max(0, len(lines)-8):], "\n  "))
	}
	return stdout.String(), nil
}

// makeErofs packs the root directory into root.erofs. Identical files are
// stored once if they are hard links of each other. Measured on the bare base:
// lz4 141 MB; lz4hc 124 MB, three seconds slower; zstd 113 MB, twice as slow
// again, and four times as slow to read, which delays every boot and emulated
// ones most. The number of workers does not change the bytes.
func (p pack) makeErofs(ctx context.Context, label string) error {
	return p.run(ctx, "mkfs.erofs", "--quiet", "-zlz4hc,level=6", "-C65536", fmt.Sprintf("--workers=%d", runtime.NumCPU()), "--all-time",
		fmt.Sprintf("-T%d", p.epoch.Unix()), "-U", p.ids.GUID("erofs"), "-L", label, "/tmp/work/root.erofs", "/tmp/root")
}

// makeHashes hashes the blocks of root.erofs into root.verity and returns the
// root hash, in hex.
func (p pack) makeHashes(ctx context.Context) (string, error) {
	err := p.run(ctx, "veritysetup", "format", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096",
		"--salt="+hex.EncodeToString(p.ids.derive("verity salt")), "--uuid="+p.ids.GUID("verity"), "--root-hash-file=/tmp/work/root.hash",
		"/tmp/work/root.erofs", "/tmp/work/root.verity")
	if err != nil {
		return "", err
	}
	hash, err := os.ReadFile(p.file("root.hash"))
	return strings.TrimSpace(string(hash)), err
}

// writeTable has systemd-repart lay out file with the partitions that the
// image brings; sources names the file of the work directory for each format.
func (p pack) writeTable(ctx context.Context, file string, plan []Partition, sources map[string]string) error {
	defs := p.file("defs")
	if err := os.Mkdir(defs, 0o755); err != nil {
		return err
	}
	for _, part := range plan {
		if part.MadeBy != "image" {
			continue
		}
		text := definition(part, "/tmp/work/"+sources[part.Format])
		if err := os.WriteFile(filepath.Join(defs, fmt.Sprintf("%d0.conf", part.Number)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	out, err := p.output(ctx, "systemd-repart", "--sector-size=512", "--empty=create", "--size=auto", "--offline=yes", "--dry-run=no",
		"--seed="+p.ids.GUID("repart"), "--definitions=/tmp/work/defs", "--json=short", "--no-pager", "/tmp/work/"+file)
	if err != nil {
		return err
	}
	if err := compareTable(plan, out); err != nil {
		return err
	}
	return p.run(ctx, "fallocate", "--dig-holes", "/tmp/work/"+file)
}

// publish syncs finished files of the work directory and gives them their
// names, which are paths in the directory out.
func (p pack) publish(out string, files map[string]string) error {
	for name := range files {
		if err := syncFile(p.file(name)); err != nil {
			return err
		}
	}
	for name, path := range files {
		if err := os.Rename(p.file(name), path); err != nil {
			return err
		}
	}
	return syncDir(out)
}
