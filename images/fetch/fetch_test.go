package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, ctx context.Context, url string, from int64, stall time.Duration) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	From(req, from)
	return Do(http.DefaultClient, req, stall)
}

// A transfer that goes on is not given up, however long it takes; one that stalls
// is, before the answer or in the middle of it.
func TestStall(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			select {
			case <-never:
			case <-r.Context().Done():
			}
		default:
			for i := range 10 {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
				if i == 5 && r.URL.Path == "/middle" {
					<-r.Context().Done()
					return
				}
			}
		}
	}))
	defer s.Close()
	var stalled Stalled
	if _, err := get(t, t.Context(), s.URL+"/silent", 0, 50*time.Millisecond); !errors.As(err, &stalled) {
		t.Errorf("no answer: %v", err)
	}
	resp, err := get(t, t.Context(), s.URL+"/middle", 0, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "xxxxxx" || !errors.As(err, &stalled) {
		t.Errorf("stalls after 6 bytes: %q, %v", b, err)
	}
	resp.Body.Close()
	if resp, err = get(t, t.Context(), s.URL+"/slow", 0, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "xxxxxxxxxx" || err != nil {
		t.Errorf("slow: %q, %v", b, err)
	}
	resp.Body.Close()

	why := errors.New("the operator says stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := get(t, ctx, s.URL+"/silent", 0, time.Minute); !errors.Is(err, why) {
		t.Errorf("stopped: %v", err)
	}
}

func TestBegin(t *testing.T) {
	const file = "0123456789"
	ranges := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch ranges {
		case "none":
			io.WriteString(w, file)
		case "wrong":
			w.Header().Set("Content-Range", "bytes 1-9/10")
			w.WriteHeader(http.StatusPartialContent)
		default:
			http.ServeContent(w, r, "f", time.Time{}, strings.NewReader(file))
		}
	}))
	defer s.Close()
	for _, c := range []struct {
		ranges string
		from   int64
		begin  int64
		rest   string
	}{{"", 0, 0, file}, {"", 4, 4, "456789"}, {"none", 4, 0, file}, {"wrong", 4, -1, ""}} {
		ranges = c.ranges
		resp, err := get(t, t.Context(), s.URL, c.from, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		begin, err := Begin(resp, c.from)
		if c.begin < 0 {
			if err == nil {
				t.Errorf("%+v: no error", c)
			}
			resp.Body.Close()
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || begin != c.begin || string(b) != c.rest {
			t.Errorf("%+v: begins at %d with %q, %v", c, begin, b, err)
		}
	}
}
