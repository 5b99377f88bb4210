// Package slot swaps images. A disk has two slots, each a root file system and
// its dm-verity hashes, and one unified kernel image for each on the ESP. The
// machine runs from one of them; an update is staged into the other, tried for
// a few boots by the boot loader's counters, and kept when it is healthy
// (systemd-boot(7), "Boot counting").
//
// What always holds: the slot that runs is never written; a slot counts only
// when its partitions carry the two halves of its root hash as UUIDs, and they
// get these after everything in it was checked; and a kernel is in the boot
// loader's list only when its slot counts. Each of these is one small write, so
// a cut leaves either what was, or what shall be.
//
// systemd-sysupdate is not used, for three reasons: it checks OpenPGP
// signatures alone, a download that was cut it begins anew, and a slot that it
// is to check first and write then must lie on the disk twice.
package slot

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// Partition types for x86-64 (Discoverable Partitions Specification).
const (
	typeRoot   = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	typeVerity = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
)

// emptyLabel is the label of a slot's partitions while nothing in it counts.
const emptyLabel = "_empty"

// Disk is the disk that this machine runs from.
type Disk struct {
	Device  string // "/dev/vda"
	Running Slot
	Other   Slot
}

// Slot is one of the disk's two.
type Slot struct {
	Name   string // "a" or "b"
	Root   Partition
	Verity Partition
}

// Partition is an entry of the disk's table.
type Partition struct {
	Node   string // "/dev/vda4"
	Number int
	Size   int64  // bytes
	UUID   string // lower case
	Label  string
}

// Hash is the root hash that the slot's partitions stand for, in hex; of an
// empty slot it is nobody's.
func (s Slot) Hash() string {
	return strings.ReplaceAll(s.Root.UUID+s.Verity.UUID, "-", "")
}

// verify reads all of the slot and holds it against a root hash, in hex.
func (s Slot) verify(ctx context.Context, h *host.Host, rootHash string) error {
	h.Log.Info("checking the slot", slog.String("slot", s.Name))
	_, err := h.Run(ctx, "veritysetup", "verify", s.Root.Node, s.Verity.Node, rootHash)
	return err
}

// FindDisk looks from which disk and slot this machine runs.
func FindDisk(ctx context.Context, h *host.Host) (Disk, error) {
	hash, err := runningHash(h)
	if err != nil {
		return Disk{}, err
	}
	device, err := rootDisk(h)
	if err != nil {
		return Disk{}, err
	}
	out, err := h.Run(ctx, "sfdisk", "--json", device)
	if err != nil {
		return Disk{}, fmt.Errorf("cannot read the partitions of %s: %w", device, err)
	}
	return readTable(out, hash)
}

// Tried says whether the boot loader counts this boot: it was begun as a trial.
// It is over when the image is kept, of which OnTrial knows.
func Tried(h *host.Host) bool { return h.Trial != nil && h.Trial() }

// OnTrial says whether the image that runs is on trial: the other slot is what
// the machine falls back to. One without slots tries nothing.
func OnTrial(ctx context.Context, h *host.Host) (bool, error) {
	if !Tried(h) {
		return false, nil
	}
	d, list, err := look(ctx, h)
	if _, none := errors.AsType[outcome.Refused](err); none {
		return false, nil
	}
	return err == nil && d.onTrial(list), err
}

// runningHash is the root hash on the kernel's command line.
func runningHash(h *host.Host) (string, error) {
	b, err := h.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(word, "roothash="); ok {
			return strings.ToLower(v), nil
		}
	}
	return "", outcome.Refuse("this machine does not run from a slot (no roothash= on its kernel's command line): its operating system brings its own updates")
}

// rootDisk finds the disk below the verified root.
func rootDisk(h *host.Host) (string, error) {
	link, err := h.Root.Readlink("dev/mapper/root")
	if err != nil {
		return "", fmt.Errorf("cannot find the disk of the root: %w", err)
	}
	parts, err := h.Entries("/sys/block/" + path.Base(link) + "/slaves")
	if err != nil || len(parts) == 0 {
		return "", fmt.Errorf("cannot find the disk of the root: %s is made of %q: %w", link, parts, err)
	}
	where, err := h.Root.Readlink("sys/class/block/" + parts[0])
	if err != nil {
		return "", fmt.Errorf("cannot find the disk of the root: %w", err)
	}
	return "/dev/" + path.Base(path.Dir(where)), nil
}

// readTable reads what `sfdisk --json` prints; hash is that of the slot that
// runs.
func readTable(b []byte, hash string) (Disk, error) {
	var t struct {
		PartitionTable struct {
			Device     string
			SectorSize int64
			Partitions []struct {
				Node, Type, UUID, Name string
				Size                   int64 // sectors
			}
		}
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return Disk{}, fmt.Errorf("cannot read what sfdisk says: %w", err)
	}
	var roots, hashes []Partition
	for _, p := range t.PartitionTable.Partitions {
		digits := strings.TrimLeft(p.Node[len(strings.TrimRight(p.Node, "0123456789")):], "0")
		n, err := strconv.Atoi(digits)
		if err != nil {
			return Disk{}, fmt.Errorf("cannot read what sfdisk says: partition %q has no number", p.Node)
		}
		q := Partition{p.Node, n, p.Size * t.PartitionTable.SectorSize, strings.ToLower(p.UUID), p.Name}
		switch strings.ToLower(p.Type) {
		case typeRoot:
			roots = append(roots, q)
		case typeVerity:
			hashes = append(hashes, q)
		}
	}
	d := Disk{Device: t.PartitionTable.Device}
	if len(roots) != 2 || len(hashes) != 2 {
		return d, fmt.Errorf("the disk %s has %d root and %d verity partitions, but two slots are two of each", d.Device, len(roots), len(hashes))
	}
	a, b2 := Slot{"a", roots[0], hashes[0]}, Slot{"b", roots[1], hashes[1]}
	switch hash {
	case a.Hash():
		d.Running, d.Other = a, b2
	case b2.Hash():
		d.Running, d.Other = b2, a
	default:
		return d, fmt.Errorf("neither slot of %s is the one that runs (%s)", d.Device, hash)
	}
	return d, nil
}

// name gives the other slot's partitions the UUIDs that hash stands for, and
// labels.
func (d *Disk) name(ctx context.Context, h *host.Host, hash, root, verity string) error {
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != 32 {
		return fmt.Errorf("%q is no SHA-256", hash)
	}
	o := &d.Other
	for _, p := range []struct {
		part  *Partition
		uuid  string
		label string
	}{{&o.Root, formatUUID(b[:16]), root}, {&o.Verity, formatUUID(b[16:]), verity}} {
		n := strconv.Itoa(p.part.Number)
		for _, set := range []struct {
			option, value string
			field         *string
		}{{"--part-uuid", p.uuid, &p.part.UUID}, {"--part-label", p.label, &p.part.Label}} {
			if *set.field == set.value {
				continue
			}
			// The kernel's table has places and sizes alone, which stay: it need not
			// read it again, and could not while the disk is used.
			err := h.Do(set.option+" "+n, func() error {
				_, err := h.Run(ctx, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", set.option, d.Device, n, set.value)
				return err
			})
			if err != nil {
				return fmt.Errorf("cannot name partition %s of %s: %w", n, d.Device, err)
			}
			*set.field = set.value
		}
	}
	return nil
}

func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
