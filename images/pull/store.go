package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/images"
)

// store is an OCI image layout in a directory. A file below blobs/ is always
// complete and verified: it is written as partial/HEX and renamed once its digest
// is verified. index.json is replaced last.
type store struct {
	dir  string
	lock *os.File
}

const partialDir = ".partial"

// openStore makes or opens the layout in dir and locks it.
func openStore(dir string) (*store, error) {
	fail := func(err error) (*store, error) { return nil, fmt.Errorf("cannot use %s as image layout: %w", dir, err) }
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	ours := func(e fs.DirEntry) bool { return e.Name() == "oci-layout" || e.Name() == partialDir }
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return fail(errors.New("it is not empty, and not an OCI image layout: use another directory, or empty this one"))
	}
	lock, err := os.Open(dir)
	if err != nil {
		return fail(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another pull is writing to it: wait for it to finish")
		}
		return fail(err)
	}
	s := &store{dir, lock}
	for _, d := range []string{partialDir, "blobs/sha256"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			s.close()
			return fail(err)
		}
	}
	return s, nil
}

func (s *store) close() { s.lock.Close() }

func (s *store) blob(h v1.Hash) string    { return filepath.Join(s.dir, "blobs", "sha256", h.Hex) }
func (s *store) partial(h v1.Hash) string { return filepath.Join(s.dir, partialDir, h.Hex) }

// has says whether the blob is there. A damaged one is removed.
func (s *store) has(ctx context.Context, h v1.Hash, size int64) (bool, error) {
	f, err := os.Open(s.blob(h))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot check blob %s: %w", h, err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, reader{ctx, f})
	if err != nil {
		return false, fmt.Errorf("cannot check blob %s: %w", h, err)
	}
	if n == size && hex.EncodeToString(sum.Sum(nil)) == h.Hex {
		return true, nil
	}
	if err := os.Remove(s.blob(h)); err != nil {
		return false, fmt.Errorf("cannot remove damaged blob %s: %w", h, err)
	}
	return false, nil
}

// reader stops when its context does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// commit makes the verified partial file f the blob h.
func (s *store) commit(f *os.File, h v1.Hash) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write blob %s: %w", h, err)
	}
	if err := os.Rename(s.partial(h), s.blob(h)); err != nil {
		return fmt.Errorf("cannot write blob %s: %w", h, err)
	}
	return syncDir(filepath.Dir(s.blob(h)))
}

// put writes a blob.
func (s *store) put(h v1.Hash, b []byte) error {
	if err := s.write(filepath.Join("blobs", "sha256", h.Hex), b); err != nil {
		return fmt.Errorf("cannot write blob %s: %w", h, err)
	}
	return nil
}

// write replaces a file of the layout atomically.
func (s *store) write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Join(s.dir, partialDir), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no more there after the rename
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	to := filepath.Join(s.dir, path)
	if err := os.Rename(f.Name(), to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// free is how many bytes are free for the layout.
func (s *store) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.lock.Fd()), &st); err != nil {
		return 0, fmt.Errorf("cannot read the free space of %s: %w", s.dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// finish adds the images to index.json, which keeps those of other names, and
// removes partial files of unfinished transfers.
func (s *store) finish(add []v1.Descriptor) error {
	fail := func(err error) error { return fmt.Errorf("cannot finish image layout %s: %w", s.dir, err) }
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	b, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	ref := func(d v1.Descriptor) string { return d.Annotations[images.RefAnnotation] }
	index.Manifests = slices.DeleteFunc(index.Manifests, func(old v1.Descriptor) bool {
		return slices.ContainsFunc(add, func(d v1.Descriptor) bool { return ref(d) == ref(old) })
	})
	index.Manifests = append(index.Manifests, add...)
	slices.SortStableFunc(index.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(ref(a), ref(b)) })
	if b, err = json.MarshalIndent(index, "", "  "); err != nil {
		return fail(err)
	}
	if err := s.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return fail(err)
	}
	if err := s.write("index.json", append(b, '\n')); err != nil {
		return fail(err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, partialDir)); err != nil {
		return fail(err)
	}
	return nil
}
