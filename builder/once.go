package builder

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// storeOnce hard-links equal regular files below dirs, so that a multi-call
// binary that serves as kubelet on the host and as four components in
// containers is in the image once, and once in the page cache. Files are
// equal when content, mode and owner are. Small files are not worth it, and are
// left alone.
func storeOnce(dirs ...string) (saved int64, err error) {
	const small = 64 << 10
	type key struct {
		sum  [sha256.Size]byte
		mode fs.FileMode
		uid  uint32
		gid  uint32
	}
	type inode struct{ dev, ino uint64 }
	first := map[key]string{}
	known := map[inode]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil || info.Size() < small {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			if ino := (inode{st.Dev, st.Ino}); known[ino] {
				return nil
			} else if st.Nlink > 1 {
				known[ino] = true
			}
			sum, err := hashFile(name)
			if err != nil {
				return err
			}
			k := key{sum, info.Mode(), st.Uid, st.Gid}
			old, ok := first[k]
			if !ok {
				first[k] = name
				return nil
			}
			tmp := name + ".once"
			if err := os.Link(old, tmp); err != nil {
				return fmt.Errorf("cannot link %s to %s: %w", name, old, err)
			}
			saved += info.Size()
			return os.Rename(tmp, name)
		})
		if err != nil {
			return saved, err
		}
	}
	return saved, nil
}

func hashFile(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("cannot read %s: %w", name, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}
