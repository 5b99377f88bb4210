package disk

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// entry is one file of an initrd: all of them belong to root.
type entry struct {
	mode   fs.FileMode // type and permissions
	data   []byte      // contents, or the target of a link
	origin string      // who put it there, for messages
}

// archive is the initrd's tree: cleaned paths without a leading slash.
type archive map[string]entry

// add puts an entry and the directories above it into the archive. A path that
// exists already is an error, unless both are directories or origin is
// "overlay".
func (a archive) add(name string, e entry) error {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		above, ok := a[dir]
		if ok && !above.mode.IsDir() {
			return fmt.Errorf("cannot add %s of %s to the initrd: %s of %s is not a directory", name, e.origin, dir, above.origin)
		}
		if !ok {
			a[dir] = entry{mode: fs.ModeDir | 0o755, origin: e.origin}
		}
	}
	if old, ok := a[name]; ok && !(old.mode.IsDir() && e.mode.IsDir()) && e.origin != "overlay" {
		return fmt.Errorf("cannot add %s of %s to the initrd: %s has already added it", name, e.origin, old.origin)
	}
	a[name] = e
	return nil
}

// writeCPIO writes the archive in the "newc" format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst), sorted by
// path, every entry with the time epoch.
func (a archive) writeCPIO(w io.Writer, epoch int64) error {
	names := make([]string, 0, len(a))
	for name := range a {
		names = append(names, name)
	}
	slices.Sort(names) // a directory sorts before its entries
	out := bufio.NewWriter(w)
	ino := 0
	put := func(name string, mode uint32, links int, data []byte) {
		ino++
		// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
		fmt.Fprintf(out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			ino, mode, 0, 0, links, uint32(epoch), len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name + "\x00")
		pad(out, 110+len(name)+1)
		out.Write(data)
		pad(out, len(data))
	}
	for _, name := range names {
		e := a[name]
		mode, links := uint32(e.mode.Perm()), 1
		switch e.mode.Type() {
		case fs.ModeDir:
			mode, links = mode|0o040000, 2
		case fs.ModeSymlink:
			mode |= 0o120000
		case 0:
			mode |= 0o100000
		default:
			return fmt.Errorf("%s: an initrd cannot hold a %s", name, e.mode.Type())
		}
		put(name, mode, links, e.data)
	}
	ino = -1
	put("TRAILER!!!", 0, 1, nil)
	return out.Flush()
}

// pad fills up to four bytes after n written ones.
func pad(w *bufio.Writer, n int) {
	for ; n%4 != 0; n++ {
		w.WriteByte(0)
	}
}
