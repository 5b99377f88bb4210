package base

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fingerprint hashes a tree: each entry's path, mode, owner, link target and
// contents, in the order of their paths. Times are not part of it.
func fingerprint(dir string) (string, error) {
	type file struct {
		path string
		info fs.FileInfo
		sum  string
		err  error
	}
	var files []*file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return errors.New(err.Error())
		}
		info, err := d.Info()
		files = append(files, &file{path: path, info: info})
		return err
	})
	if err != nil {
		return "", err
	}
	var wg sync.WaitGroup
	work := make(chan *file)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf, h := make([]byte, 256<<10), sha256.New()
			for f := range work {
				f.sum, f.err = contents(f.path, f.info, h, buf)
			}
		})
	}
	for _, f := range files {
		work <- f
	}
	close(work)
	wg.Wait()
	all := sha256.New()
	for _, f := range files {
		if f.err != nil {
			return "", f.err
		}
		st, ok := f.info.Sys().(*syscall.Stat_t)
		if !ok {
			return "", fmt.Errorf("the owner of %s is unknown", f.path)
		}
		fmt.Fprintf(all, "%q %s %d %d %s\n", strings.TrimPrefix(f.path, dir), f.info.Mode(), st.Uid, st.Gid, f.sum)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

func contents(path string, info fs.FileInfo, h hash.Hash, buf []byte) (string, error) {
	switch {
	case info.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h.Reset()
		if _, err := io.CopyBuffer(h, f, buf); err != nil {
			return "", err
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	case info.Mode()&fs.ModeSymlink != 0:
		return os.Readlink(path)
	}
	return "", nil
}

// lock takes the lock file at path, waiting for another kbuild to finish.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// writeFile replaces the file at path atomically.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
