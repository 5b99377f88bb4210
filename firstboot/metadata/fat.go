package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// fat is a FAT file system (Microsoft, "FAT: General Overview of On-Disk
// Format", 1.03), of 12, 16 or 32 bits.
type fat struct {
	r        io.ReaderAt
	bits     int
	table    int64 // offset of the first table
	data     int64 // offset of cluster 2
	cluster  int64 // bytes in a cluster
	clusters uint32
}

const fatEntry = 32 // bytes of a directory entry

// fatRoot lists the top directory.
func fatRoot(r io.ReaderAt) ([]entry, error) {
	b, err := readAt(r, 0, 512)
	if err != nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, errFormat
	}
	le16 := func(i int) int64 { return int64(binary.LittleEndian.Uint16(b[i:])) }
	le32 := func(i int) int64 { return int64(binary.LittleEndian.Uint32(b[i:])) }
	sector, perCluster, reserved, tables, rootEntries := le16(11), int64(b[13]), le16(14), int64(b[16]), le16(17)
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || tables == 0 || tables > 2 {
		return nil, errFormat
	}
	total, tableSectors := le16(19), le16(22)
	if total == 0 {
		total = le32(32)
	}
	if tableSectors == 0 {
		tableSectors = le32(36)
	}
	rootSectors := (rootEntries*fatEntry + sector - 1) / sector
	first := reserved + tables*tableSectors + rootSectors
	if total <= first {
		return nil, errors.New("the FAT file system is damaged: it has no room for data")
	}
	f := &fat{r: r, table: reserved * sector, data: first * sector, cluster: perCluster * sector, clusters: uint32(min((total-first)/perCluster, 1<<28))}
	switch {
	case le16(22) == 0: // only FAT32 has its table's size elsewhere
		f.bits = 32
	case f.clusters < 4085:
		f.bits = 12
	default:
		f.bits = 16
	}
	var dir []byte
	if f.bits == 32 {
		dir, err = f.chain(binary.LittleEndian.Uint32(b[44:]), maxEntries*fatEntry, true)
	} else {
		dir, err = readAt(r, (reserved+tables*tableSectors)*sector, min(rootEntries, maxEntries)*fatEntry)
	}
	if err != nil {
		return nil, err
	}
	return f.entries(dir), nil
}

// next is the cluster that follows c in its chain; ok is false at the end.
func (f *fat) next(c uint32) (uint32, bool, error) {
	var off, size int64
	switch f.bits {
	case 12:
		off, size = int64(c)+int64(c)/2, 2
	case 16:
		off, size = int64(c)*2, 2
	default:
		off, size = int64(c)*4, 4
	}
	b, err := readAt(f.r, f.table+off, size)
	if err != nil {
		return 0, false, err
	}
	var v, end uint32
	switch f.bits {
	case 12:
		v, end = uint32(binary.LittleEndian.Uint16(b)), 0xff8
		if c%2 == 1 {
			v >>= 4
		}
		v &= 0xfff
	case 16:
		v, end = uint32(binary.LittleEndian.Uint16(b)), 0xfff8
	default:
		v, end = binary.LittleEndian.Uint32(b)&0x0fffffff, 0x0ffffff8
	}
	return v, v < end, nil
}

// chain reads the clusters from c on: size bytes, or up to size if upTo. It
// goes at most as many clusters as these bytes fill, so that a chain that runs
// in a circle ends.
func (f *fat) chain(c uint32, size int64, upTo bool) ([]byte, error) {
	var out []byte
	for int64(len(out)) < size {
		if c < 2 || c-2 >= f.clusters {
			return nil, fmt.Errorf("the FAT file system is damaged: cluster %d does not exist", c)
		}
		b, err := readAt(f.r, f.data+int64(c-2)*f.cluster, min(f.cluster, size-int64(len(out))))
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
		next, more, err := f.next(c)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		c = next
	}
	if int64(len(out)) < size && !upTo {
		return nil, fmt.Errorf("the FAT file system is damaged: a file of %d bytes ends after %d", size, len(out))
	}
	return out, nil
}

// Attributes of a directory entry.
const (
	fatDirectory = 0x10
	fatVolumeID  = 0x08
	fatLongName  = 0x0f
)

func (f *fat) entries(dir []byte) []entry {
	var out []entry
	var long []uint16 // of the entries just seen, last part first
	for ; len(dir) >= fatEntry && dir[0] != 0; dir = dir[fatEntry:] {
		d := dir[:fatEntry]
		attr := d[11]
		switch {
		case d[0] == 0xe5: // removed
			long = nil
			continue
		case attr&0x3f == fatLongName:
			if d[0]&0x40 != 0 {
				long = nil
			}
			if len(long) < 20*13 {
				long = append(longPart(d), long...)
			}
			continue
		case attr&fatVolumeID != 0 || d[0] == '.': // a label, the directory itself, the one above
			long = nil
			continue
		}
		e := entry{name: shortName(d), size: int64(binary.LittleEndian.Uint32(d[28:]))}
		if len(long) > 0 {
			e.name = string(utf16.Decode(long))
		}
		long = nil
		c, size := uint32(binary.LittleEndian.Uint16(d[26:])), e.size
		if f.bits == 32 {
			c |= uint32(binary.LittleEndian.Uint16(d[20:])) << 16
		}
		if attr&fatDirectory != 0 {
			e.list = func() ([]entry, error) {
				b, err := f.chain(c, maxEntries*fatEntry, true)
				return f.entries(b), err
			}
		} else {
			e.read = func() ([]byte, error) {
				if size == 0 {
					return nil, nil
				}
				return f.chain(c, size, false)
			}
		}
		out = append(out, e)
	}
	return out
}

// longPart is the part of a long name in one entry, without what fills it up.
func longPart(d []byte) []uint16 {
	var out []uint16
	for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for i := r[0]; i < r[1]; i += 2 {
			u := binary.LittleEndian.Uint16(d[i:])
			if u == 0 {
				return out
			}
			out = append(out, u)
		}
	}
	return out
}

func shortName(d []byte) string {
	name := strings.TrimRight(string(d[:8]), " ")
	if ext := strings.TrimRight(string(d[8:11]), " "); ext != "" {
		name += "." + ext
	}
	return name
}
