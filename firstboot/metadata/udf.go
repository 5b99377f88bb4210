package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"

	"github.com/kbuild/kbuild/firstboot/config"
)

// UDF (OSTA, "Universal Disk Format", on top of ECMA-167), as it is on optical
// discs that are written once: 2048-byte blocks, one physical partition.
// Azure's provisioning disc is one. Sections are ECMA-167's.
const (
	udfBlock     = 2048
	udfAnchor    = 256 // where the anchor is (3/8.4.2.1)
	udfMaxBlocks = 64  // of a volume descriptor sequence
)

// Descriptors, by their tag identifiers (3/7.2.1, 4/7.2.1).
const (
	udfTagAnchor     = 2
	udfTagPartition  = 5
	udfTagLogical    = 6
	udfTagTerminator = 8
	udfTagFileSet    = 256
	udfTagName       = 257
	udfTagFile       = 261
	udfTagExtended   = 266
)

var errUDF = errors.New("the UDF file system is damaged")

// udf is a UDF file system.
type udf struct {
	r     io.ReaderAt
	start int64 // of the partition, in blocks
}

// udfTag reads the descriptor at a block of the volume; its tag's checksum must
// be right (3/7.2.3), and may be any byte. An empty block has the identifier 0,
// which is no descriptor's (3/7.2.1).
func udfTag(r io.ReaderAt, block int64) (tag int, b []byte, err error) {
	b, err = readAt(r, block*udfBlock, udfBlock)
	if err != nil {
		return 0, nil, err
	}
	sum := byte(0)
	for i, c := range b[:16] {
		if i != 4 {
			sum += c
		}
	}
	tag = int(binary.LittleEndian.Uint16(b))
	if sum != b[4] || tag == 0 {
		return 0, nil, errUDF
	}
	return tag, b, nil
}

// udfRoot lists the top directory.
func udfRoot(r io.ReaderAt) ([]entry, error) {
	tag, b, err := udfTag(r, udfAnchor)
	if err != nil || tag != udfTagAnchor {
		return nil, errFormat
	}
	var partition, logical []byte
	at := int64(binary.LittleEndian.Uint32(b[20:]))
	for i := range min(int64(binary.LittleEndian.Uint32(b[16:]))/udfBlock, udfMaxBlocks) {
		tag, b, err := udfTag(r, at+i)
		if err != nil || tag == udfTagTerminator {
			break
		}
		switch tag {
		case udfTagPartition:
			partition = b
		case udfTagLogical:
			logical = b
		}
	}
	if partition == nil || logical == nil {
		return nil, errUDF
	}
	// 3/10.6.12, 3/10.7: a single map, of type 1, is a plain partition.
	if size, maps := binary.LittleEndian.Uint32(logical[212:]), binary.LittleEndian.Uint32(logical[268:]); size != udfBlock || maps != 1 || logical[440] != 1 {
		return nil, fmt.Errorf("the UDF file system has blocks of %d bytes and %d partition maps; only one plain partition of %d-byte blocks can be read", size, maps, udfBlock)
	}
	u := &udf{r, int64(binary.LittleEndian.Uint32(partition[188:]))}
	tag, set, err := udfTag(r, u.start+int64(binary.LittleEndian.Uint32(logical[252:])))
	if err != nil || tag != udfTagFileSet {
		return nil, errUDF
	}
	return u.list(binary.LittleEndian.Uint32(set[404:])) // 4/14.1.15
}

// file reads what the file entry at a block of the partition is of, if it has
// at most limit bytes, else nothing but its size (4/14.9, 4/14.17).
func (u *udf) file(block uint32, limit int64) (data []byte, size int64, err error) {
	tag, b, err := udfTag(u.r, u.start+int64(block))
	if err != nil {
		return nil, 0, err
	}
	head := 176
	switch tag {
	case udfTagFile:
	case udfTagExtended:
		head = 216
	default:
		return nil, 0, errUDF
	}
	size = int64(binary.LittleEndian.Uint64(b[56:]))
	if size < 0 || size > limit {
		return nil, size, nil
	}
	attrs, descs := int64(binary.LittleEndian.Uint32(b[head-8:])), int64(binary.LittleEndian.Uint32(b[head-4:]))
	if int64(head)+attrs+descs > udfBlock {
		return nil, 0, errUDF
	}
	d := b[int64(head)+attrs:][:descs]
	switch step := 8; b[34] & 7 { // 4/14.6.8
	case 3: // the file itself stands there
		data = d
	case 1: // long descriptors (4/14.14.2) have 16 bytes, short ones 8
		step = 16
		fallthrough
	case 0:
		for ; len(d) >= step && int64(len(data)) < size; d = d[step:] {
			n := int64(binary.LittleEndian.Uint32(d))
			if n>>30 != 0 || n == 0 { // not recorded, or more descriptors elsewhere (4/14.14.1.1)
				return nil, 0, errUDF
			}
			part, err := readAt(u.r, (u.start+int64(binary.LittleEndian.Uint32(d[4:])))*udfBlock, min(n, size-int64(len(data))))
			if err != nil {
				return nil, 0, err
			}
			data = append(data, part...)
		}
	}
	if int64(len(data)) < size {
		return nil, 0, errUDF
	}
	return data[:size], size, nil
}

// list lists the directory whose file entry is at a block (4/14.4).
func (u *udf) list(block uint32) ([]entry, error) {
	dir, size, err := u.file(block, config.MaxSize)
	if err != nil {
		return nil, err
	}
	if dir == nil && size > 0 {
		return nil, fmt.Errorf("a directory has %d bytes", size)
	}
	var out []entry
	for len(dir) >= 38 && len(out) < maxEntries {
		if binary.LittleEndian.Uint16(dir) != udfTagName {
			return nil, errUDF
		}
		what, name, skip := dir[18], int(dir[19]), int(binary.LittleEndian.Uint16(dir[36:]))
		n := (38 + skip + name + 3) / 4 * 4
		if n > len(dir) {
			return nil, errUDF
		}
		at := binary.LittleEndian.Uint32(dir[24:])
		e := entry{name: udfName(dir[38+skip:][:name])}
		dir = dir[n:]
		switch {
		case what&(4|8) != 0: // deleted, or the directory above
			continue
		case what&2 != 0:
			e.list = func() ([]entry, error) { return u.list(at) }
		default:
			e.read = func() ([]byte, error) {
				b, size, err := u.file(at, config.MaxSize)
				if err == nil && b == nil && size > 0 {
					err = fmt.Errorf("it is %w", errTooLarge)
				}
				return b, err
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// udfName is a name in OSTA's compressed Unicode (UDF 2.1.1).
func udfName(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	var u []uint16
	if b[0] == 16 {
		for b = b[1:]; len(b) >= 2; b = b[2:] {
			u = append(u, binary.BigEndian.Uint16(b))
		}
	} else {
		for _, c := range b[1:] {
			u = append(u, uint16(c))
		}
	}
	return string(utf16.Decode(u))
}
