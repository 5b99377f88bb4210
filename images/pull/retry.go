package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild/kbuild/images/fetch"
)

// Retry says how often a request is tried that fails temporarily, and how long to
// wait in between: Base, doubled each time up to Max, less a random part; or what
// the registry asks for with Retry-After.
type Retry struct {
	Tries     int
	Base, Max time.Duration
}

// DefaultRetry is long enough for a registry to restart.
func DefaultRetry() Retry {
	return Retry{Tries: 6, Base: 500 * time.Millisecond, Max: 20 * time.Second}
}

// longestWait is the longest Retry-After that is waited for; a longer one, as of
// registries with hourly or daily limits, is an error.
const longestWait = 5 * time.Minute

// statusError is an unexpected status of the registry's response.
type statusError struct {
	status     int
	retryAfter time.Duration // 0: not said
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("the registry answers %d %s", e.status, http.StatusText(e.status))
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		s += ": log in first, as with docker login"
	}
	return s
}

// contentError is content that does not match its digest or size.
type contentError struct{ what string }

func (e *contentError) Error() string { return e.what }

// brokenError is a transfer that was interrupted.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// temporary says whether err may be gone at the next try, and the wait that the
// registry asks for.
func temporary(err error) (bool, time.Duration) {
	var s *statusError
	if errors.As(err, &s) {
		return passingStatus(s.status), s.retryAfter
	}
	var t *transport.Error
	if errors.As(err, &t) {
		return passingStatus(t.StatusCode), 0
	}
	var c *contentError
	var b *brokenError
	var dns *net.DNSError
	var timeout net.Error
	var stalled fetch.Stalled
	switch {
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout, 0
	case errors.As(err, &c), errors.As(err, &b), errors.As(err, &stalled),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE):
		return true, 0
	case errors.As(err, &timeout):
		return timeout.Timeout(), 0
	}
	return false, 0
}

func passingStatus(code int) bool {
	return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500 && code != http.StatusNotImplemented
}

// again runs f until it succeeds, fails permanently, or has failed Tries times
// without progress. f says whether it made progress.
func (p *puller) again(ctx context.Context, what string, f func() (further bool, err error)) error {
	for try := 1; ; try++ {
		further, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if further {
			try = 1
		}
		ok, wait := temporary(err)
		if !ok {
			return err
		}
		if try >= p.Retry.Tries {
			return fmt.Errorf("%w (tried %d times)", err, try)
		}
		if wait > longestWait {
			return fmt.Errorf("%w, which asks to wait %v: try again then, or use a mirror or credentials", err, wait)
		}
		if wait == 0 {
			wait = min(p.Retry.Base<<min(try-1, 20), p.Retry.Max)
			wait -= time.Duration(rand.Int64N(int64(wait)/2 + 1))
		}
		p.report(Event{Kind: Retrying, Image: what, Err: err, Wait: wait})
		if err := p.Wait(ctx, wait); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110,
// section 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n >= 0 {
		return time.Duration(min(n, 1<<31)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// withoutURL removes the URL from an HTTP client's error: after a redirect it may
// contain a signature.
func withoutURL(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}
