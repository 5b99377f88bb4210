package pull

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestPull(t *testing.T) {
	s := newServer(t)
	shared := layer(1, 300_000)
	a := image(t, "amd64", shared, layer(2, 200_000))
	arm := image(t, "arm64", layer(3, 1000))
	b := image(t, "amd64", shared)
	both := index(map[string]v1.Image{"amd64": a, "arm64": arm})
	nameA, nameB := s.push(t, "k8s/a:v1", both), s.push(t, "b:v2", b)

	o := options(t, nameB, nameA, nameA)
	var events []Event
	o.Report = func(e Event) { events = append(events, e) }
	s.misbehave("none", 0, nil)
	got, err := Pull(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	in := check(t, o.Dir)
	if len(in) != 2 || digestOf(t, in[nameA]) != digestOf(t, a) || digestOf(t, in[nameB]) != digestOf(t, b) {
		t.Errorf("the layout holds %v", in)
	}
	if len(got) != 2 {
		t.Fatalf("pulled %v", got)
	}
	for _, i := range got {
		if i.Name == nameA && (i.Digest != digestOf(t, both).String() || i.Manifest != digestOf(t, a).String()) {
			t.Errorf("digests of %s are %s and %s", i.Name, i.Digest, i.Manifest)
		}
	}
	if n := s.requests("GET", digestOf(t, shared).String()); n != 1 {
		t.Errorf("the shared layer was asked for %d times", n)
	}
	if n := s.requests(digestOf(t, arm).String()); n != 0 {
		t.Errorf("the other platform's image was asked for %d times", n)
	}
	st := newState()
	for _, e := range events {
		st.add(e)
	}
	if have, all := st.total(); have != all || len(st.done) != 2 {
		t.Errorf("progress ends at %d of %d bytes and %d images", have, all, len(st.done))
	}
	if _, err := os.Stat(filepath.Join(o.Dir, partialDir)); !os.IsNotExist(err) {
		t.Errorf("something is left of transfers: %v", err)
	}

	// Again: nothing but manifests is asked for, and the index stays as it is.
	before, _ := os.ReadFile(filepath.Join(o.Dir, "index.json"))
	s.misbehave("none", 0, nil)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(filepath.Join(o.Dir, "index.json"))
	if s.requests("/blobs/") != 0 || string(before) != string(after) {
		t.Errorf("the second pull asked for %d blobs; index before and after:\n%s\n%s", s.requests("/blobs/"), before, after)
	}

	// Another image is put beside them.
	o.Images = []string{s.push(t, "c:v3", image(t, "amd64", layer(4, 10)))}
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if in := check(t, o.Dir); len(in) != 3 {
		t.Errorf("after the third pull the layout holds %v", in)
	}
}

// Each fault strikes twice; the pull must get over it.
func TestMisbehaviour(t *testing.T) {
	big := layer(1, 400_000)
	for name, c := range map[string]struct {
		part  string
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		stall time.Duration
		quiet bool // no try again is expected
		rests bool // a Range request is expected
	}{
		"truncated layer":     {part: "/blobs/" + digestOf(t, big).String(), fault: truncated, rests: true},
		"truncated config":    {part: "/blobs/", fault: truncated},
		"truncated manifest":  {part: "/manifests/", fault: truncated},
		"wrong bytes":         {part: "/blobs/" + digestOf(t, big).String(), fault: wrongBytes},
		"wrong bytes in all":  {part: "/blobs/", fault: wrongBytes},
		"wrong manifest":      {part: "/manifests/", fault: wrongBytes},
		"too many bytes":      {part: "/blobs/" + digestOf(t, big).String(), fault: tooMuch},
		"429":                 {part: "/blobs/", fault: status(429, "Retry-After", "7")},
		"429 for a manifest":  {part: "/manifests/", fault: status(429)},
		"429 at login":        {part: "/v2/", fault: status(429)},
		"503":                 {part: "/blobs/", fault: status(503)},
		"500 for a manifest":  {part: "/manifests/", fault: status(500)},
		"connection reset":    {part: "/blobs/" + digestOf(t, big).String(), fault: reset, rests: true},
		"reset of a manifest": {part: "/manifests/", fault: reset},
		"stalls":              {part: "/blobs/" + digestOf(t, big).String(), fault: stalls, stall: 200 * time.Millisecond, rests: true},
		"slow":                {part: "/blobs/", fault: slow, quiet: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			img := image(t, "amd64", big, layer(2, 5000))
			ref := s.push(t, "some/image:v1", index(map[string]v1.Image{"amd64": img}))
			o := options(t, ref)
			o.Stall = c.stall
			tries := 0
			o.Report = func(e Event) {
				if e.Kind == Retrying {
					tries++
				}
			}
			s.misbehave(c.part, 2, c.fault)
			if _, err := Pull(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if in := check(t, o.Dir); digestOf(t, in[ref]) != digestOf(t, img) {
				t.Errorf("the layout holds %v", in)
			}
			if (tries == 0) != c.quiet {
				t.Errorf("it was tried again %d times", tries)
			}
			if rests := s.requests("/blobs/", "bytes=") > 0; c.rests && !rests {
				t.Errorf("the rest was not asked for: %v", s.seen)
			}
		})
	}
}

// A registry that ignores Range, or refuses it, makes the blob begin again.
func TestNoRanges(t *testing.T) {
	for name, second := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){"ignores": noRanges, "refuses": status(416)} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			big := layer(1, 400_000)
			ref := s.push(t, "image:v1", image(t, "amd64", big))
			o := options(t, ref)
			first := true
			s.misbehave(digestOf(t, big).String(), 2, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if first {
					first = false
					truncated(w, r, next)
					return
				}
				if r.Header.Get("Range") == "" {
					t.Error("the second request has no Range")
				}
				second(w, r, next)
			})
			if _, err := Pull(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			check(t, o.Dir)
		})
	}
}

func TestRetryAfter(t *testing.T) {
	s := newServer(t)
	ref := s.push(t, "image:v1", image(t, "amd64", layer(1, 10)))
	o := options(t, ref)
	var waits []time.Duration
	o.Wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
	s.misbehave("/manifests/", 1, status(429, "Retry-After", "7"))
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(waits, []time.Duration{7 * time.Second}) {
		t.Errorf("waited %v", waits)
	}

	waits = nil
	s.misbehave("/manifests/", 1, status(429, "Retry-After", "86400"))
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "asks to wait 24h0m0s") || waits != nil {
		t.Errorf("a day's wait: waited %v, error %v", waits, err)
	}
}

// What never gets right is an error, and no half of it counts.
func TestGivesUp(t *testing.T) {
	big := layer(1, 100_000)
	for name, c := range map[string]struct {
		part  string
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		want  string
		asked int
	}{
		"wrong bytes": {"/blobs/" + digestOf(t, big).String(), wrongBytes, "content is wrong", 4},
		"503":         {"/blobs/" + digestOf(t, big).String(), status(503), "503 Service Unavailable (tried 4 times)", 4},
		"404":         {"/blobs/" + digestOf(t, big).String(), status(404), "404 Not Found", 1},
		"403":         {"/manifests/", status(403), "docker login", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			ref := s.push(t, "image:v1", index(map[string]v1.Image{"amd64": image(t, "amd64", big)}))
			o := options(t, ref)
			s.misbehave(c.part, 1000, c.fault)
			_, err := Pull(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "cannot pull "+ref) {
				t.Errorf("error: %v", err)
			}
			if n := s.requests("GET", c.part); n != c.asked {
				t.Errorf("asked %d times, want %d", n, c.asked)
			}
			if _, err := os.Stat(filepath.Join(o.Dir, "blobs/sha256", digestOf(t, big).Hex)); !os.IsNotExist(err) {
				t.Errorf("the blob is in the layout: %v", err)
			}
			if _, err := os.Stat(filepath.Join(o.Dir, "index.json")); !os.IsNotExist(err) {
				t.Errorf("the index was written: %v", err)
			}
			s.misbehave("none", 0, nil)
			if _, err := Pull(t.Context(), o); err != nil {
				t.Fatalf("the next run: %v", err)
			}
			check(t, o.Dir)
		})
	}
}

func TestDamagedBlob(t *testing.T) {
	s := newServer(t)
	big := layer(1, 100_000)
	ref := s.push(t, "image:v1", image(t, "amd64", big))
	o := options(t, ref)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(o.Dir, "blobs/sha256", digestOf(t, big).Hex)
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[5000] ^= 4
	if err := os.WriteFile(blob, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(t, o.Dir)
}

// Two names for one image without index have their config checked at the same
// time.
func TestSameBlobsAtOnce(t *testing.T) {
	s := newServer(t)
	img := image(t, "amd64", layer(1, 200_000))
	var names []string
	for _, tag := range []string{"a", "b", "c", "d", "e", "f"} {
		names = append(names, s.push(t, "image:"+tag, img))
	}
	o := options(t, names...)
	o.Parallel = 6
	s.misbehave("none", 0, nil)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if in := check(t, o.Dir); len(in) != 6 {
		t.Errorf("the layout holds %v", in)
	}
	if n := s.requests("GET", "/blobs/"); n != 2 {
		t.Errorf("%d blobs were asked for", n)
	}
}

func TestCancel(t *testing.T) {
	s := newServer(t)
	big := layer(1, 400_000)
	ref := s.push(t, "image:v1", image(t, "amd64", big))
	o := options(t, ref)
	o.Wait = nil
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var once sync.Once
	o.Report = func(e Event) {
		if e.Kind == Bytes && e.Bytes > 100_000 {
			once.Do(cancel)
		}
	}
	s.misbehave(digestOf(t, big).String(), 1, stalls)
	if _, err := Pull(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	o.Report = nil
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if s.requests(digestOf(t, big).String(), "bytes=") == 0 {
		t.Errorf("the second pull did not go on where the first stopped: %v", s.seen)
	}
	check(t, o.Dir)
}

func TestDirectory(t *testing.T) {
	s := newServer(t)
	o := options(t, s.push(t, "image:v1", image(t, "amd64", layer(1, 10))))
	if err := os.WriteFile(filepath.Join(o.Dir, "thesis.txt"), []byte("words"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("someone's directory: %v", err)
	}
	o.Dir = t.TempDir()
	held, err := openStore(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another pull") {
		t.Errorf("a directory that another pull writes: %v", err)
	}
	held.close()
	if _, err := Pull(t.Context(), o); err != nil {
		t.Error(err)
	}
}

func TestPlatform(t *testing.T) {
	s := newServer(t)
	amd := image(t, "amd64", layer(1, 10))
	single, many := s.push(t, "single:v1", amd), s.push(t, "many:v1", index(map[string]v1.Image{"amd64": amd}))
	for ref, want := range map[string]string{single: "the image is for linux/amd64, not for linux/arm64", many: "no image for linux/arm64, only for linux/amd64"} {
		o := options(t, ref)
		o.Platform = "linux/arm64"
		if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	o := options(t, single)
	o.Platform = "amd64"
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "OS/ARCH") {
		t.Errorf("platform amd64: %v", err)
	}
}
