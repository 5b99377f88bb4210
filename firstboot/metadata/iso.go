package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// ISO 9660 (ECMA-119): 2048-byte sectors, volume descriptors from sector 16,
// numbers in both byte orders.
const (
	isoSector     = 2048
	isoDescriptor = 16  // 6.7.1: first volume descriptor
	isoRootRecord = 156 // 8.4.18: the top directory's record in a descriptor
	isoMaxDesc    = 32
	isoMaxDirSize = 1 << 20
)

// isoRoot lists the top directory: by its Joliet names if there are some, else
// by Rock Ridge's or its own.
func isoRoot(r io.ReaderAt) ([]entry, error) {
	var primary, joliet []byte
	for i := range isoMaxDesc {
		d, err := readAt(r, int64(isoDescriptor+i)*isoSector, isoSector)
		if err != nil || string(d[1:6]) != "CD001" {
			if i == 0 {
				return nil, errFormat
			}
			break
		}
		switch {
		case d[0] == 1:
			primary = d
		case d[0] == 2 && d[88] == '%' && d[89] == '/' && (d[90] == '@' || d[90] == 'C' || d[90] == 'E'):
			joliet = d // escape sequences of the Joliet specification
		}
		if d[0] == 255 {
			break
		}
	}
	d := primary
	if joliet != nil {
		d = joliet
	}
	if d == nil {
		return nil, errors.New("the ISO 9660 volume has no primary descriptor")
	}
	if bs := binary.LittleEndian.Uint16(d[128:]); bs != isoSector {
		return nil, fmt.Errorf("the ISO 9660 volume has blocks of %d bytes, not %d", bs, isoSector)
	}
	return isoList(r, d[isoRootRecord:], joliet != nil)
}

// isoList lists the directory that a record is of.
func isoList(r io.ReaderAt, rec []byte, joliet bool) ([]entry, error) {
	size := int64(binary.LittleEndian.Uint32(rec[10:]))
	if size > isoMaxDirSize {
		return nil, fmt.Errorf("a directory has %d bytes", size)
	}
	dir, err := readAt(r, int64(binary.LittleEndian.Uint32(rec[2:]))*isoSector, size)
	if err != nil {
		return nil, err
	}
	return isoEntries(r, dir, joliet), nil
}

// isoEntries reads directory records (9.1).
func isoEntries(r io.ReaderAt, dir []byte, joliet bool) []entry {
	var out []entry
	for off := 0; off+34 <= len(dir) && len(out) < maxEntries; {
		n := int(dir[off])
		if n == 0 { // the rest of this sector is empty
			off = (off/isoSector + 1) * isoSector
			continue
		}
		if n < 34 || off+n > len(dir) {
			break
		}
		rec := dir[off : off+n]
		off += n
		nameLen := int(rec[32])
		// Damaged, or the directory itself or the one above it (7.6.2, 7.6.3).
		if 33+nameLen > n || nameLen == 1 && rec[33] <= 1 {
			continue
		}
		e := entry{name: isoName(rec, nameLen, joliet), size: int64(binary.LittleEndian.Uint32(rec[10:]))}
		at, size := int64(binary.LittleEndian.Uint32(rec[2:]))*isoSector, e.size
		if rec[25]&2 != 0 { // a directory
			e.list = func() ([]entry, error) { return isoList(r, rec, joliet) }
		} else {
			e.read = func() ([]byte, error) { return readAt(r, at, size) }
		}
		out = append(out, e)
	}
	return out
}

func isoName(rec []byte, nameLen int, joliet bool) string {
	raw := rec[33 : 33+nameLen]
	if joliet {
		u := make([]uint16, nameLen/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(raw[2*i:])
		}
		name, _, _ := strings.Cut(string(utf16.Decode(u)), ";")
		return name
	}
	// Rock Ridge (IEEE P1282 4.1.4): NM entries in the system use area.
	name := ""
	for su := rec[33+nameLen+(nameLen+1)%2:]; len(su) >= 4 && int(su[2]) >= 4 && int(su[2]) <= len(su); su = su[su[2]:] {
		if string(su[:2]) == "NM" && su[2] >= 5 {
			name += string(su[5:su[2]])
		}
	}
	if name != "" {
		return name
	}
	plain, _, _ := strings.Cut(string(raw), ";")
	return strings.TrimSuffix(plain, ".")
}
