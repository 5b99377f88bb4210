package host

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The client goes straight to the server, past proxies, stays there, and does
// not take a header without end.
func TestHTTPClient(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/header":
			w.Header().Set("X", strings.Repeat("x", 128<<10))
		case r.Header.Get("Accept-Encoding") != "":
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer s.Close()
	h, err := Local(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	if h.HTTP.Transport.(*http.Transport).Proxy != nil || h.HTTP.Timeout == 0 {
		t.Error("it may use a proxy, or wait for ever")
	}
	for path, want := range map[string]int{"/": 200, "/moved": 302, "/header": 0} {
		asked = 0
		resp, err := h.HTTP.Get(s.URL + path)
		got := 0
		if err == nil {
			got = resp.StatusCode
			resp.Body.Close()
		}
		if got != want || asked != 1 {
			t.Errorf("%s: %d, want %d, asked %d times: %v", path, got, want, asked, err)
		}
	}
}

// Off VMware's machines the backdoor is not touched, which would end the
// process.
func TestGuestInfoElsewhere(t *testing.T) {
	if v, err := guestInfo("userdata"); err == nil {
		t.Skipf("this is a machine of VMware's: %d bytes", len(v))
	} else if !strings.Contains(err.Error(), "cannot ask for guestinfo") {
		t.Error(err)
	}
}
