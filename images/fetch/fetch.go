// Package fetch makes one HTTP request for a file that may be large: the transfer
// takes as long as it takes, but fails when nothing comes any more, and it may go
// on in the middle of the file. When and how often it is tried again is the
// caller's business, as is checking what came.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Stalled is the error of a transfer of which no byte came for so long.
type Stalled struct{ For time.Duration }

func (s Stalled) Error() string { return fmt.Sprintf("no byte came for %v", s.For) }

// Do makes a request. It, and reads of the answer's body, fail with Stalled when
// no byte has come for the time stall, and with its cause when the request's
// context has ended. The caller closes the body.
func Do(client *http.Client, req *http.Request, stall time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	b := &body{ctx: ctx, cancel: cancel, stall: stall}
	b.timer = time.AfterFunc(stall, func() { cancel(Stalled{stall}) })
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		err = b.because(err)
		b.timer.Stop()
		cancel(nil)
		return nil, err
	}
	b.ReadCloser = resp.Body
	resp.Body = b
	return resp, nil
}

// body is an answer's body that is watched.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.because(err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// because replaces an error that follows from the context's end by its cause.
func (b *body) because(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

// From has a request ask for its file from a byte on.
func From(req *http.Request, from int64) {
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
}

// Begin is the byte of the file at which an answer begins to a request From a
// byte on: 0 where the server sends all of it, having no ranges. A range that was
// not asked for is an error; the status of an answer without the file is the
// caller's to judge.
func Begin(resp *http.Response, from int64) (int64, error) {
	if resp.StatusCode != http.StatusPartialContent {
		return 0, nil
	}
	var first int64
	given := resp.Header.Get("Content-Range") // RFC 9110, section 14.4
	if _, err := fmt.Sscanf(given, "bytes %d-", &first); err != nil || first != from {
		return 0, fmt.Errorf("the server answers with the range %q to a request from byte %d on", given, from)
	}
	return first, nil
}
