package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/builder/progress"
)

// store keeps what was made, by content of what it was made from: the entry
// KIND/KEY is a directory, and KIND/KEY.json lists its files with their
// digests. The list is written last, so an entry without one does not count.
type store struct{ dir string }

// record is one file of an entry.
type record struct {
	SHA256 string `json:"sha256,omitempty"`
	Link   string `json:"link,omitempty"` // target, of a symbolic link
	Size   int64  `json:"size"`
	// Time and Inode are those at which SHA256 was last seen to hold. A file
	// that still has them is taken to be unchanged, as git does; any other is
	// read again.
	Time  time.Time `json:"time"`
	Inode uint64    `json:"inode"`
}

// key names what an entry is made from: any JSON-encodable values.
func key(parts ...any) string {
	b, err := json.Marshal(parts)
	if err != nil {
		panic("source: key of a value that JSON cannot hold: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// entry returns the directory of an entry. What is missing or damaged is made
// by fill in a temporary directory, which then takes the entry's place. Two
// processes that want the same entry make it once.
func (s store) entry(ctx context.Context, kind, key string, log progress.Log, fill func(ctx context.Context, dir string) error) (string, error) {
	home := filepath.Join(s.dir, kind)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", fmt.Errorf("cannot use the cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(home, key+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir, list := filepath.Join(home, key), filepath.Join(home, key+".json")
	switch err := verify(dir, list); {
	case err == nil:
		return dir, nil
	case !errors.Is(err, fs.ErrNotExist):
		log("cache entry %s/%s is damaged and is made again: %v", kind, key, err)
	}
	if err := errors.Join(os.RemoveAll(list), os.RemoveAll(dir)); err != nil {
		return "", fmt.Errorf("cannot remove a damaged cache entry: %w", err)
	}
	tmp := filepath.Join(home, key+".tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("cannot remove an unfinished cache entry: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", fmt.Errorf("cannot use the cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := fill(ctx, tmp); err != nil {
		return "", err
	}
	files, err := survey(tmp, nil)
	if err != nil {
		return "", fmt.Errorf("cannot record a cache entry: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("cannot keep a cache entry: %w", err)
	}
	return dir, writeList(list, files)
}

// verify compares an entry with its list. It fails with fs.ErrNotExist if
// there is no entry.
func verify(dir, list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var want map[string]record
	if err := json.Unmarshal(b, &want); err != nil {
		return fmt.Errorf("cannot read %s: %w", list, err)
	}
	got, err := survey(dir, want)
	if err != nil {
		return fmt.Errorf("cannot check: %s", err) // not ErrNotExist: the list is there
	}
	moved := false
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok:
			return fmt.Errorf("%s is missing", name)
		case g.SHA256 != w.SHA256 || g.Link != w.Link:
			return fmt.Errorf("%s has digest %s instead of %s", name, g.SHA256, w.SHA256)
		}
		moved = moved || g != w
	}
	if len(got) != len(want) {
		return fmt.Errorf("it holds %d files instead of %d", len(got), len(want))
	}
	if moved {
		return writeList(list, got)
	}
	return nil
}

// survey lists the files below dir; digests are taken from known where size,
// time and inode are the same.
func survey(dir string, known map[string]record) (map[string]record, error) {
	files := map[string]record{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		r := record{Size: st.Size, Time: time.Unix(st.Mtim.Unix()).UTC(), Inode: st.Ino}
		if d.Type() == fs.ModeSymlink {
			if r.Link, err = os.Readlink(path); err != nil {
				return err
			}
		} else if k := known[name]; k.Size == r.Size && k.Time.Equal(r.Time) && k.Inode == r.Inode {
			r = k
		} else if r.SHA256, err = fileDigest(path); err != nil {
			return err
		}
		files[name] = r
		return nil
	})
	return files, err
}

func writeList(list string, files map[string]record) error {
	b, err := json.MarshalIndent(files, "", " ")
	if err != nil {
		return err
	}
	if err := writeFile(list, b, 0o644); err != nil {
		return fmt.Errorf("cannot keep a cache entry: %w", err)
	}
	return nil
}

// lock takes an exclusive lock on path and returns the function that gives
// it back.
func lock(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the cache: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("cannot wait for another build that holds %s: %w", path, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fileDigest is the SHA-256 of a file, in hex.
func fileDigest(path string) (string, error) { return hashFile(path, sha256.New()) }

// writeFile writes a whole file or nothing.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
