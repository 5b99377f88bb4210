package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mirror is a server of files that misbehaves on purpose: the next answers
// for a path are taken from its faults.
type mirror struct {
	files  map[string][]byte
	mu     sync.Mutex
	faults map[string][]string
	log    []string // "PATH RANGE"
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.log = append(m.log, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	fault := ""
	if f := m.faults[r.URL.Path]; len(f) > 0 {
		fault, m.faults[r.URL.Path] = f[0], f[1:]
	}
	m.mu.Unlock()
	body, ok := m.files[r.URL.Path]
	switch status, err := strconv.Atoi(fault); {
	case err == nil:
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		return
	case !ok:
		http.NotFound(w, r)
		return
	case fault == "truncate": // and cut the connection
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	case fault == "norange":
		r.Header.Del("Range")
	case fault == "stall":
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// release lays out a file with its checksum file.
func (m *mirror) release(path string, body []byte, ext string) {
	m.files[path] = body
	switch ext {
	case ".sha256", ".sha256sum":
		m.files[path+ext] = fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(body), filepath.Base(path))
	case ".sha512":
		m.files[path+ext] = fmt.Appendf(nil, "%x", sha512.Sum512(body))
	}
}

func newMirror(t *testing.T) (*mirror, string) {
	m := &mirror{files: map[string][]byte{}, faults: map[string][]string{}}
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return m, s.URL
}

func TestDownload(t *testing.T) {
	body := bytes.Repeat([]byte("kubelet "), 40000)
	const path = "/v1.19.12/bin/linux/amd64/kubelet"
	for name, c := range map[string]struct {
		ext    string
		faults []string
		sum    []string // faults of the checksum file
		part   []byte   // left by an earlier run
		body   []byte   // served instead, under the right checksum
		ranges []string // what was asked for
		err    string
	}{
		"good":             {ext: ".sha512", ranges: []string{""}},
		"only sha256":      {ext: ".sha256", ranges: []string{""}},
		"no checksum":      {err: "kubelet.sha256sum answers 404 Not Found"},
		"absent":           {ext: "absent", err: "answers 404 Not Found"},
		"busy":             {ext: ".sha512", faults: []string{"429", "503"}, sum: []string{"429"}, ranges: []string{"", "", ""}},
		"busy for ever":    {ext: ".sha512", faults: []string{"500", "500", "500", "500"}, err: "answers 500 Internal Server Error (tried 4 times)"},
		"forbidden":        {ext: ".sha512", faults: []string{"403"}, ranges: []string{""}, err: "answers 403 Forbidden"},
		"truncated":        {ext: ".sha512", faults: []string{"truncate"}, ranges: []string{"", "bytes=160000-"}},
		"stalled":          {ext: ".sha512", faults: []string{"stall"}, ranges: []string{"", "bytes=160000-"}},
		"resumed":          {ext: ".sha512", part: body[:1000], ranges: []string{"bytes=1000-"}},
		"no ranges":        {ext: ".sha512", part: body[:1000], faults: []string{"norange"}, ranges: []string{"bytes=1000-"}},
		"whole before":     {ext: ".sha512", part: body, ranges: []string{"bytes=320000-"}},
		"part of another":  {ext: ".sha512", part: []byte("something else"), ranges: []string{"bytes=14-", ""}},
		"longer before":    {ext: ".sha512", part: append([]byte("x"), body...), ranges: []string{"bytes=320001-", ""}},
		"wrong checksum":   {ext: ".sha512", body: []byte("evil"), ranges: []string{""}, err: "its checksum file says"},
		"checksum is HTML": {ext: "html", err: "holds no checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			m, url := newMirror(t)
			if c.ext != "absent" {
				m.release(path, body, c.ext)
			}
			if c.ext == "html" {
				m.files[path+".sha512"] = []byte("<html>please log in</html>")
			}
			if c.body != nil {
				m.files[path] = c.body
			}
			m.faults[path], m.faults[path+".sha512"] = c.faults, c.sum
			var waits []time.Duration
			d := newDownloader()
			d.tries, d.stall = 4, 200*time.Millisecond
			d.wait = func(_ context.Context, w time.Duration) error { waits = append(waits, w); return nil }
			dir := t.TempDir()
			part, to := filepath.Join(dir, "partial", "x"), filepath.Join(dir, "kubelet")
			if c.part != nil {
				if err := errors.Join(os.Mkdir(filepath.Dir(part), 0o755), os.WriteFile(part, c.part, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			sum, err := d.checksumOf(t.Context(), url+path)
			if err == nil {
				err = d.file(t.Context(), url+path, part, to, sum)
			}
			switch {
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Fatalf("got %v, want %q", err, c.err)
			}
			got, err := os.ReadFile(to)
			if c.err == "" && !bytes.Equal(got, body) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if c.err != "" && err == nil {
				t.Error("there is a file after an error")
			}
			if c.ranges != nil {
				var asked []string
				for _, l := range m.log {
					if p, r, _ := strings.Cut(l, " "); p == path {
						asked = append(asked, r)
					}
				}
				if fmt.Sprint(asked) != fmt.Sprint(c.ranges) {
					t.Errorf("asked for %q, want %q", asked, c.ranges)
				}
			}
			if name == "busy" && (len(waits) != 3 || waits[0] != 7*time.Second) {
				t.Errorf("waited %v, the server asked for 7 s", waits)
			}
		})
	}
}

// Stopped in the middle, a download keeps what came and goes on from there.
func TestDownloadStopped(t *testing.T) {
	body := bytes.Repeat([]byte("kubelet "), 40000)
	m, url := newMirror(t)
	m.release("/kubelet", body, ".sha256")
	m.faults["/kubelet"] = []string{"stall"}
	dir := t.TempDir()
	part, to := filepath.Join(dir, "part"), filepath.Join(dir, "kubelet")
	d := newDownloader()
	sum, err := d.checksumOf(t.Context(), url+"/kubelet")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for size(part) < int64(len(body)/2) {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := d.file(ctx, url+"/kubelet", part, to, sum); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := d.file(t.Context(), url+"/kubelet", part, to, sum); err != nil {
		t.Fatal(err)
	}
	if last := m.log[len(m.log)-1]; last != "/kubelet bytes=160000-" {
		t.Errorf("the second time asked for %q", last)
	}
}
