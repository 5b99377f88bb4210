// Package disk turns a root directory into what a machine boots: an erofs
// image with its dm-verity hashes, an initrd, a unified kernel image whose
// command line carries the root hash, and a GPT disk with an ESP that holds
// it.
//
// Same root, tools, seed and epoch give the same bytes. Nothing is mounted on
// the host and no loop device is used; all tools run in the tools tree of
// package base. A file appears under its name only when it is whole.
package disk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

const mib = 1 << 20

// Sizes of the partitions, in bytes. They are fixed for the life of a machine: a
// swap of slots cannot change them. templates/root/usr/lib/repart.d says the
// same to systemd-repart on the node.
const (
	// ESPSize holds some 15 unified kernel images of today's 30 MiB; two or
	// three are installed at a time.
	ESPSize = 512 * mib
	// SlotSize is the space for one compressed root. A full node needs 0.3 to
	// 0.6 GiB today, so there is room for three times as much; and both slots, ESP and a small var still fit on a disk of
	// 8 GB, the smallest default of the big clouds.
	SlotSize = 2048 * mib
	// VeritySize is for the hashes of a full slot: SlotSize/4096 blocks of 32
	// bytes, and one 128th of that for the levels above, is 16.2 MiB.
	VeritySize = 32 * mib
	// VarMinSize is the minimum size of var; less space is an error at the first
	// boot.
	VarMinSize = 2048 * mib
)

// Partition types for x86-64, from the Discoverable Partitions Specification
// of the UAPI Group.
const (
	typeESP    = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeRoot   = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	typeVerity = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
	typeVar    = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
)

// Layout is what the partition table depends on.
type Layout struct {
	Seed    string // any stable text: the same seed gives the same GUIDs
	Version string // of the image; part of the slot's labels. At most 28 characters, see CheckVersion
}

// Partition is one entry of the table.
type Partition struct {
	Number   int    `json:"number"`
	Label    string `json:"label"`    // "_empty" is a slot that systemd-sysupdate may fill
	Type     string `json:"type"`     // GUID
	UUID     string `json:"uuid"`     // empty where UUIDFrom says who decides
	UUIDFrom string `json:"uuidFrom"` // "seed", "root hash, first half", "root hash, second half", "first boot"
	Size     uint64 `json:"size"`     // bytes; of var the least
	Grows    bool   `json:"grows,omitempty"`
	Format   string `json:"format,omitempty"` // vfat, erofs, verity, ext4
	MadeBy   string `json:"madeBy"`           // "image" or "first boot"
}

// Plan returns the table of a disk as it is after its first boot. It depends
// on l alone. The root's UUIDs follow from contents that are not known yet:
// SetRootHash fills them in.
func Plan(l Layout) []Partition {
	return []Partition{
		{1, "esp", typeESP, l.GUID("esp"), "seed", ESPSize, false, "vfat", "image"},
		{2, rootLabel(l.Version), typeRoot, "", "root hash, first half", SlotSize, false, "erofs", "image"},
		{3, verityLabel(l.Version), typeVerity, "", "root hash, second half", VeritySize, false, "verity", "image"},
		{4, "_empty", typeRoot, "", "first boot", SlotSize, false, "", "first boot"},
		{5, "_empty", typeVerity, "", "first boot", VeritySize, false, "", "first boot"},
		{6, "var", typeVar, "", "first boot", VarMinSize, true, "ext4", "first boot"},
	}
}

// SetRootHash returns the plan with the UUIDs of slot A, which are the two
// halves of the root hash: that is how the initrd finds the slot.
func SetRootHash(plan []Partition, hash string) ([]Partition, error) {
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("%q is not a SHA-256 root hash", hash)
	}
	out := append([]Partition(nil), plan...)
	for i, p := range out {
		switch p.UUIDFrom {
		case "root hash, first half":
			out[i].UUID = formatUUID(b[:16])
		case "root hash, second half":
			out[i].UUID = formatUUID(b[16:])
		}
	}
	return out, nil
}

// Labels that systemd-sysupdate can match with a version in them
// (root_@v, verity_@v).
func rootLabel(version string) string   { return "root_" + version }
func verityLabel(version string) string { return "verity_" + version }

// CheckVersion refuses versions that cannot be part of a partition's label
// (36 UTF-16 units in GPT), of a file on the ESP, or of a sysupdate pattern.
func CheckVersion(version string) error {
	if version == "" || len(version) > 28 {
		return fmt.Errorf("image version %q must have 1 to 28 characters, to fit into a partition label", version)
	}
	for _, c := range version {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '~', c == '^':
		default:
			return fmt.Errorf("image version %q contains %q; only letters, digits and .-~^ are allowed", version, c)
		}
	}
	return nil
}

// GUID derives the identifier named name from the seed, marked as version 4
// like systemd's own derived identifiers.
func (l Layout) GUID(name string) string {
	b := l.derive(name)[:16]
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return formatUUID(b)
}

// DiskGUID is the disk's own identifier: systemd-repart derives it from the
// seed that it is given (--seed) like this.
func (l Layout) DiskGUID() string {
	m := hmac.New(sha256.New, parseUUID(l.GUID("repart")))
	m.Write([]byte("disk-uuid"))
	b := m.Sum(nil)[:16]
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return formatUUID(b)
}

func (l Layout) derive(name string) []byte {
	m := hmac.New(sha256.New, []byte("kbuild disk\x00"+l.Seed))
	m.Write([]byte(name))
	return m.Sum(nil)
}

func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func parseUUID(s string) []byte {
	var b []byte
	if _, err := fmt.Sscanf(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:], "%x", &b); err != nil {
		panic(err) // only formatUUID's results get here
	}
	return b
}
