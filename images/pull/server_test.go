package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kbuild/kbuild/images"
)

// server is a real registry on loopback, behind a layer that misbehaves.
type server struct {
	host string

	mu    sync.Mutex
	seen  []string // "GET /v2/…" with the Range, if any
	fault func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		line := r.Method + " " + r.URL.Path
		if rg := r.Header.Get("Range"); rg != "" {
			line += " " + rg
		}
		s.seen = append(s.seen, line)
		fault := s.fault
		s.mu.Unlock()
		if fault == nil || !fault(w, r, next) {
			next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	s.host = strings.TrimPrefix(h.URL, "http://")
	return s
}

// misbehave has f answer, where it returns true, the first n GETs whose path
// contains part.
func (s *server) misbehave(part string, n int, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	left := n
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
	s.fault = func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		s.mu.Lock()
		mine := r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) && left > 0
		if mine {
			left--
		}
		s.mu.Unlock()
		if mine {
			f(w, r, next)
		}
		return mine
	}
}

// requests counts the requests that contain all parts.
func (s *server) requests(parts ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.seen {
		ok := true
		for _, p := range parts {
			ok = ok && strings.Contains(l, p)
		}
		if ok {
			n++
		}
	}
	return n
}

// layer is a layer with a file of n bytes that look random; the same seed gives
// the same layer.
func layer(seed uint64, n int) v1.Layer {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(n)}), second(w.Write(b)), w.Close())
	if err != nil {
		panic(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		panic(err)
	}
	return l
}

func second(_ int, err error) error { return err }

func image(t *testing.T, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func index(imgs map[string]v1.Image) v1.ImageIndex {
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"arm64", "amd64"} {
		if imgs[arch] != nil {
			idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: imgs[arch], Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
		}
	}
	return idx
}

// push puts an image or index there and returns its full name.
func (s *server) push(t *testing.T, path string, what remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(s.host + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	switch w := what.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, w)
	case v1.Image:
		err = remote.Write(ref, w)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

// options pulls into a directory of the test, and does not really wait.
func options(t *testing.T, names ...string) Options {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	return Options{
		Images: names, Dir: t.TempDir(), Platform: "linux/amd64",
		Retry: Retry{Tries: 4, Base: time.Millisecond, Max: time.Millisecond},
		Wait:  func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

// check reads the layout with code that is not ours and returns its images by
// name; every digest and size is computed again.
func check(t *testing.T, dir string) map[string]v1.Image {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]v1.Image{}
	for _, d := range m.Manifests {
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("%s: %v", d.Annotations[images.RefAnnotation], err)
		}
		out[d.Annotations[images.RefAnnotation]] = img
	}
	return out
}

func digestOf(t *testing.T, w interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	h, err := w.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The ways to misbehave.

func truncated(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
}

func wrongBytes(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	b := bytes.Clone(rec.Body.Bytes())
	b[len(b)/2] ^= 1
	w.WriteHeader(rec.Code)
	w.Write(b)
}

func tooMuch(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	w.WriteHeader(rec.Code)
	w.Write(append(rec.Body.Bytes(), "more"...))
}

func status(code int, header ...string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func reset(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: " + rec.Header().Get("Content-Length") + "\r\n\r\n")
	buf.Write(rec.Body.Bytes()[:rec.Body.Len()/3])
	buf.Flush()
	conn.(*net.TCPConn).SetLinger(0) // close by a reset
	conn.Close()
}

// stalls sends a part and then nothing until the client gives up.
func stalls(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	w.Header().Set("Content-Length", rec.Header().Get("Content-Length"))
	w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// slow sends everything, a little at a time.
func slow(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for b := rec.Body.Bytes(); len(b) > 0; {
		n := min(len(b), 8<<10)
		w.Write(b[:n])
		w.(http.Flusher).Flush()
		time.Sleep(time.Millisecond)
		b = b[n:]
	}
}

func noRanges(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r.Header.Del("Range")
	next.ServeHTTP(w, r)
}
