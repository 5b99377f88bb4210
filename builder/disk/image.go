package disk

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// makeRoot packs the root directory into what fits a slot.
func (b *builder) makeRoot(ctx context.Context) error {
	if err := b.makeErofs(ctx, "kbuild-root"); err != nil {
		return err
	}
	info, err := os.Stat(b.file("root.erofs"))
	if err != nil {
		return err
	}
	if info.Size() > SlotSize {
		return fmt.Errorf("it is %d MiB, and a slot has room for %d MiB: bake fewer container images", info.Size()>>20, SlotSize>>20)
	}
	return nil
}

// makeVerity hashes the root's blocks.
func (b *builder) makeVerity(ctx context.Context) (err error) {
	b.rootHash, err = b.makeHashes(ctx)
	return err
}

// makeUKI binds kernel, initrd and root hash into one file.
func (b *builder) makeUKI(ctx context.Context) error {
	b.cmdline = strings.Join(append([]string{"roothash=" + b.rootHash}, Cmdline(b.Input.Cmdline)...), " ")
	return b.run(ctx, "ukify", append([]string{"build", "--efi-arch=x64",
		"--linux=/tmp/root/usr/lib/modules/" + b.kernel + "/vmlinuz", "--initrd=/tmp/work/initrd.zst", "--uname=" + b.kernel,
		"--os-release=@/tmp/root/usr/lib/os-release", "--cmdline=" + b.cmdline, "--output=/tmp/work/uki.efi"}, b.SecureBoot.ukifyArgs()...)...)
}

// makeESP makes the file system of the ESP with systemd-boot and the slot's
// kernel. The tools of mtools are called file by file, so that the order of
// the entries does not depend on the host.
func (b *builder) makeESP(ctx context.Context) error {
	f, err := os.Create(b.file("esp.img"))
	if err != nil {
		return err
	}
	if err := f.Truncate(ESPSize); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(b.file("loader.conf"), []byte("timeout 0\nconsole-mode keep\n"), 0o644); err != nil {
		return err
	}
	for _, name := range []string{"loader.conf", "uki.efi"} {
		if err := os.Chtimes(b.file(name), b.Epoch, b.Epoch); err != nil {
			return err
		}
	}
	volume := strings.ToUpper(hex.EncodeToString(b.derive("fat volume")[:4]))
	if err := b.run(ctx, "mkfs.vfat", "-F32", "-S512", "-s8", "-n", "ESP", "-i", volume, "/tmp/work/esp.img"); err != nil {
		return err
	}
	if err := b.run(ctx, "mmd", "-i", "/tmp/work/esp.img", "::/EFI", "::/EFI/BOOT", "::/EFI/systemd", "::/EFI/Linux", "::/loader"); err != nil {
		return err
	}
	boot, err := b.bootLoader(ctx)
	if err != nil {
		return err
	}
	for _, copy := range [][2]string{
		{boot, "::/EFI/BOOT/BOOTX64.EFI"},
		{boot, "::/EFI/systemd/systemd-bootx64.efi"},
		{"/tmp/work/loader.conf", "::/loader/loader.conf"},
		// The slot's version, which of that version, and the root hash's beginning:
		// firstboot/slot reads it, and adds "+3-0" while a slot is on trial.
		{"/tmp/work/uki.efi", "::/EFI/Linux/kbuild_" + b.Version + "_0_" + b.rootHash[:16] + ".efi"},
	} {
		if err := b.run(ctx, "mcopy", "-m", "-i", "/tmp/work/esp.img", copy[0], copy[1]); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk lays the three partitions out.
func (b *builder) makeDisk(ctx context.Context) error {
	plan, err := SetRootHash(Plan(b.Layout), b.rootHash)
	if err != nil {
		return err
	}
	return b.writeTable(ctx, "disk.raw", plan, map[string]string{"vfat": "esp.img", "erofs": "root.erofs", "verity": "root.verity"})
}

// definition is the repart.d(5) file of a partition of the image. Copied
// blocks keep the size of the partition fixed, so the file systems do not
// depend on systemd-repart's choices.
func definition(p Partition, source string) string {
	text := fmt.Sprintf("[Partition]\nType=%s\nLabel=%s\nUUID=%s\nSizeMinBytes=%d\nSizeMaxBytes=%d\nCopyBlocks=%s\n",
		p.Type, p.Label, p.UUID, p.Size, p.Size, source)
	if p.Format != "vfat" {
		text += "ReadOnly=yes\n"
	}
	return text
}

// compareTable checks what systemd-repart says that it did against the plan.
func compareTable(plan []Partition, out string) error {
	var got []struct {
		Label   string `json:"label"`
		UUID    string `json:"uuid"`
		RawSize uint64 `json:"raw_size"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return fmt.Errorf("cannot read systemd-repart's table: %w: %.200q", err, out)
	}
	n := 0
	for _, p := range plan {
		if p.MadeBy != "image" {
			continue
		}
		if n >= len(got) || got[n].Label != p.Label || got[n].UUID != p.UUID || got[n].RawSize != p.Size {
			return fmt.Errorf("systemd-repart did not make the planned partition table: partition %d should be %+v; it made %s", n+1, p, out)
		}
		n++
	}
	if n != len(got) {
		return fmt.Errorf("systemd-repart made %d partitions, the plan has %d: %s", len(got), n, out)
	}
	return nil
}

// convert makes the other formats of the disk.
func (b *builder) convert(ctx context.Context) error {
	for _, f := range b.Formats {
		if f == "qcow2" {
			// In order and by one coroutine, so that clusters get the same places.
			if err := b.run(ctx, "qemu-img", "convert", "-m", "1", "-f", "raw", "-O", "qcow2", "/tmp/work/disk.raw", "/tmp/work/disk.qcow2"); err != nil {
				return err
			}
		}
	}
	return nil
}
