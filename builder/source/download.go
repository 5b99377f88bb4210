package source

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild/kbuild/images/fetch"
)

// downloader fetches files over HTTP: it retries after temporary errors, resumes
// where it stopped, and verifies checksums.
type downloader struct {
	client *http.Client
	tries  int
	stall  time.Duration // a transfer that receives nothing for so long has failed
	wait   func(context.Context, time.Duration) error
	far    func(have int64) // called with the number of bytes received so far; may be nil
}

func newDownloader() downloader {
	return downloader{client: &http.Client{}, tries: 6, stall: time.Minute, wait: func(ctx context.Context, d time.Duration) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(d):
			return nil
		}
	}}
}

// statusError is an answer that is not the file.
type statusError struct {
	url    string
	status int
	after  time.Duration // from Retry-After
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answers %d %s", e.url, e.status, http.StatusText(e.status))
}

func isStatus(err error, status int) bool {
	var s *statusError
	return errors.As(err, &s) && s.status == status
}

// checksum is what a file must hash to.
type checksum struct {
	new func() hash.Hash
	hex string
}

// checksumOf asks for the checksum file beside url: .sha512 if there is one,
// else .sha256, else .sha256sum.
func (d downloader) checksumOf(ctx context.Context, url string) (checksum, error) {
	kinds := []struct {
		ext string
		new func() hash.Hash
	}{{".sha512", sha512.New}, {".sha256", sha256.New}, {".sha256sum", sha256.New}}
	var last error
	for _, k := range kinds {
		text, err := d.text(ctx, url+k.ext)
		if isStatus(err, http.StatusNotFound) {
			last = err
			continue
		}
		if err != nil {
			return checksum{}, err
		}
		// "HEX" or, as sha256sum writes it, "HEX  NAME".
		f := strings.Fields(text)
		if len(f) == 0 || len(f[0]) != 2*k.new().Size() {
			return checksum{}, fmt.Errorf("%s holds no checksum but %q", url+k.ext, lastLines(text, 1))
		}
		if _, err := hex.DecodeString(f[0]); err != nil {
			return checksum{}, fmt.Errorf("%s holds no checksum but %q", url+k.ext, f[0])
		}
		return checksum{k.new, strings.ToLower(f[0])}, nil
	}
	return checksum{}, last
}

// text fetches a small file.
func (d downloader) text(ctx context.Context, url string) (string, error) {
	var s strings.Builder
	err := d.again(ctx, func() error {
		s.Reset()
		return d.get(ctx, url, 0, func(r io.Reader, _ int64) error {
			_, err := io.Copy(&s, io.LimitReader(r, 1<<16))
			return err
		})
	})
	return s.String(), err
}

// file fetches url into path, which must not exist. An interrupted download is kept
// at part, and the next call resumes it.
func (d downloader) file(ctx context.Context, url, part, path string, want checksum) error {
	if err := os.MkdirAll(filepath.Dir(part), 0o755); err != nil {
		return fmt.Errorf("cannot download %s: %w", url, err)
	}
	for fresh := false; ; fresh = true {
		had := size(part)
		if err := d.again(ctx, func() error { return d.append(ctx, url, part) }); err != nil {
			return fmt.Errorf("cannot download %s: %w", url, err)
		}
		got, err := hashFile(part, want.new())
		if err != nil {
			return fmt.Errorf("cannot download %s: %w", url, err)
		}
		if got == want.hex {
			return os.Rename(part, path)
		}
		if err := os.Remove(part); err != nil {
			return err
		}
		// The part of an earlier run may be of another file: start over once.
		if had == 0 || fresh {
			return fmt.Errorf("cannot use %s: its checksum is %s, its checksum file says %s", url, got, want.hex)
		}
	}
}

// append resumes a download where part ends.
func (d downloader) append(ctx context.Context, url, part string) error {
	return d.get(ctx, url, size(part), func(r io.Reader, from int64) error {
		f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(from); err != nil {
			return err
		}
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// get asks for url from an offset on and hands its body to use, with the
// offset that the body begins at: 0 where the server sends all.
func (d downloader) get(ctx context.Context, url string, from int64, use func(r io.Reader, from int64) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	fetch.From(req, from)
	resp, err := fetch.Do(d.client, req, d.stall)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent && from > 0:
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from > 0:
		return nil // nothing is missing; the checksum tells
	default:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &statusError{url, resp.StatusCode, time.Duration(seconds) * time.Second}
	}
	have, err := fetch.Begin(resp, from)
	if err != nil {
		return fmt.Errorf("cannot go on with %s: %w", url, err)
	}
	return use(readerFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		if have += int64(n); d.far != nil {
			d.far(have)
		}
		return n, err
	}), have)
}

// because replaces an error that follows from the context's end by its cause.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// again calls do until it succeeds, fails for good, or has had its tries.
func (d downloader) again(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || ctx.Err() != nil {
			return because(ctx, err)
		}
		pause := time.Second << (try - 1)
		var s *statusError
		var disk *os.PathError
		if errors.As(err, &s) {
			if s.status != http.StatusTooManyRequests && s.status != http.StatusRequestTimeout && s.status < 500 {
				return err
			}
			pause = max(pause, min(s.after, 5*time.Minute))
		} else if errors.As(err, &disk) {
			return err
		}
		if try == d.tries {
			return fmt.Errorf("%w (tried %d times)", err, try)
		}
		if err := d.wait(ctx, pause); err != nil {
			return err
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// size is that of a file; 0 if there is none.
func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func hashFile(path string, h hash.Hash) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("nothing came")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("cannot read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
