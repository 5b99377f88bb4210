package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kbuild/kbuild/images/fetch"
)

// keyed is a lock for each blob.
type keyed struct{ m sync.Map }

func (k *keyed) lock(h v1.Hash) (unlock func()) {
	v, _ := k.m.LoadOrStore(h, &sync.Mutex{})
	mu := v.(*sync.Mutex)
	mu.Lock()
	return mu.Unlock
}

// transfer fetches a blob from the first of the image's sources that has it.
func (p *puller) transfer(ctx context.Context, t *target, b Blob) error {
	defer p.blobs.lock(b.Digest)()
	if there, err := p.store.has(ctx, b.Digest, b.Size); there || err != nil {
		return err
	}
	var errs []error
	for _, at := range t.at {
		furthest := int64(0)
		err := p.again(ctx, t.Name, func() (bool, error) {
			reached, err := p.attempt(ctx, at, b)
			further := reached > furthest
			furthest = max(furthest, reached)
			return further, err
		})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("blob %s from %s: %w", b.Digest, at.Name(), err))
	}
	return errors.Join(errs...)
}

// begun is how many bytes an earlier transfer left.
func (s *store) begun(h v1.Hash) int64 {
	fi, err := os.Stat(s.partial(h))
	if err != nil {
		return 0
	}
	return fi.Size()
}

// attempt resumes the partial file of a blob. It returns how far it came; after
// wrong content that is 0, and the file is empty again.
func (p *puller) attempt(ctx context.Context, at name.Repository, b Blob) (reached int64, err error) {
	f, err := os.OpenFile(p.store.partial(b.Digest), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return 0, fmt.Errorf("cannot write: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, reader{ctx, f})
	if err != nil {
		return 0, fmt.Errorf("cannot read what was transferred before: %w", err)
	}
	if have > b.Size {
		if err := restart(f, sum); err != nil {
			return 0, err
		}
		have = 0
	}
	if have < b.Size || b.Size == 0 {
		if have, err = p.stream(ctx, at, b, f, sum, have); err != nil {
			return have, err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); have != b.Size || got != b.Digest.Hex {
		p.report(Event{Kind: Bytes, Digest: b.Digest})
		if err := restart(f, sum); err != nil {
			return 0, err
		}
		return 0, &contentError{fmt.Sprintf("the content is wrong: %d bytes with digest sha256:%s instead of %d bytes", have, got, b.Size)}
	}
	return have, p.store.commit(f, b.Digest)
}

// stream appends to f what the registry has from byte have on, and returns the
// new length.
func (p *puller) stream(ctx context.Context, at name.Repository, b Blob, f *os.File, sum hash.Hash, have int64) (int64, error) {
	header := http.Header{}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", have, b.Size-1))
	}
	resp, err := p.regs.get(ctx, at, "blobs/"+b.Digest.String(), header)
	if s := (*statusError)(nil); errors.As(err, &s) && s.status == http.StatusRequestedRangeNotSatisfiable && have > 0 {
		// The registry does not support ranges: start over.
		if err := restart(f, sum); err != nil {
			return 0, err
		}
		return p.stream(ctx, at, b, f, sum, 0)
	}
	if err != nil {
		return have, err
	}
	defer resp.Body.Close()
	begin, err := fetch.Begin(resp, have)
	if err != nil {
		return have, &contentError{err.Error()}
	}
	if begin == 0 && have > 0 {
		if err := restart(f, sum); err != nil {
			return 0, err
		}
		have = 0
	}
	buf := make([]byte, 128<<10)
	// One byte more than expected, to notice content that is too long.
	for body := io.LimitReader(resp.Body, b.Size-have+1); ; {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return have, fmt.Errorf("cannot write: %w", err)
			}
			sum.Write(buf[:n])
			have += int64(n)
			p.report(Event{Kind: Bytes, Digest: b.Digest, Bytes: have})
		}
		switch {
		case err == io.EOF && have < b.Size:
			return have, fmt.Errorf("the transfer ended at byte %d of %d: %w", have, b.Size, io.ErrUnexpectedEOF)
		case err == io.EOF:
			return have, nil
		case err != nil:
			return have, fmt.Errorf("the transfer was interrupted at byte %d of %d: %w", have, b.Size, &brokenError{err})
		}
	}
}

// restart discards what was transferred.
func restart(f *os.File, sum hash.Hash) error {
	sum.Reset()
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	return nil
}
