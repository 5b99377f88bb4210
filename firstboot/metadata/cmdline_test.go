package metadata

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// web is the machine with this kernel command line and, at example.com, a
// server of https and one of http with these paths.
func web(t testing.TB, cmdline string, paths map[string]http.HandlerFunc) *network {
	t.Helper()
	mux := http.NewServeMux()
	for p, f := range paths {
		mux.HandleFunc(p, f)
	}
	n := online(t, map[string]string{"/proc/cmdline": "root=/dev/mapper/root ro " + cmdline + "\n"}, mux, "example.com:80")
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	n.servers["example.com:443"] = s.Listener.Addr().String()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate()) // it is valid for example.com
	n.HTTP.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	return n
}

func to(url string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) }
}

func TestURL(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(document)))
	packed := zipped(t, document)
	paths := map[string]http.HandlerFunc{
		"/ok": text(document), "/gz": text(string(packed)), "/large": text(strings.Repeat("#", config.MaxSize+1)),
		"/busy": code(503), "/cut": truncated, "/forbidden": code(403),
		"/moved": to("https://example.com/ok"), "/down": to("http://example.com/ok"), "/circle": to("/circle"), "/odd": to("ftp://example.com/ok"),
	}
	for _, c := range []struct{ cmdline, source, err string }{
		{"kbuild.userdata=https://example.com/ok", "URL https://example.com/ok", ""},
		{"kbuild.userdata=https://example.com/ok?key=geheim", "URL https://example.com/ok", ""},
		{"kbuild.userdata=https://user:geheim@example.com/ok", "URL https://example.com/ok", ""},
		{`quiet kbuild.userdata="https://example.com/ok" x`, "URL https://example.com/ok", ""},
		{"kbuild.userdata=https://example.com/gz kbuild.userdata.sha256=" + fmt.Sprintf("%x", sha256.Sum256(packed)), "URL https://example.com/gz", ""},
		{"kbuild.userdata=https://example.com/moved", "URL https://example.com/moved", ""},
		{"kbuild.userdata=http://example.com/ok kbuild.userdata.sha256=" + strings.ToUpper(sum), "URL http://example.com/ok", ""},
		{"kbuild.userdata=http://example.com/down kbuild.userdata.sha256=" + sum, "URL http://example.com/down", ""},
		{"kbuild.userdatax=https://example.com/ok x.kbuild.userdata=1", "", ""},
		{"kbuild.userdata=", "", ""},

		{"kbuild.userdata=http://example.com/ok", "", "which anyone on the way can answer"},
		{"kbuild.userdata=http://example.com/ok kbuild.userdata.sha256=abc", "", "64 hexadecimal digits"},
		{"kbuild.userdata=http://example.com/ok kbuild.userdata.sha256=" + strings.Repeat("0", 64), "", "has sha256 " + sum},
		{"kbuild.userdata.sha256=" + sum, "", "no https:// or http:// URL"},
		{"kbuild.userdata=ftp://example.com/ok", "", "no https:// or http:// URL"},
		{"kbuild.userdata=/etc/x", "", "no https:// or http:// URL"},
		{"kbuild.userdata=https://example.com/nothing?key=geheim", "", "https://example.com/nothing: it answers 404 Not Found; put the file there"},
		{"kbuild.userdata=https://example.com/forbidden", "", "403"},
		{"kbuild.userdata=https://example.com/busy", "", "503"},
		{"kbuild.userdata=https://example.com/cut", "", "breaks off"},
		{"kbuild.userdata=https://example.com/large", "", "larger than"},
		{"kbuild.userdata=https://example.com/down", "", "it redirects from https to http"},
		{"kbuild.userdata=https://example.com/odd", "", "it redirects from https to ftp"},
		{"kbuild.userdata=https://example.com/circle", "", "more than 5 times"},
		{"kbuild.userdata=https://192.0.2.1/ok", "", "network is unreachable"},
	} {
		n := web(t, c.cmdline, paths)
		f, err := Find(t.Context(), n.Host)
		if f.Source != c.source || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.cmdline, f.Source, err)
		}
		if c.source != "" && string(f.UserData()) != document {
			t.Errorf("%s: %q", c.cmdline, f.UserData())
		}
		if strings.Contains(fmt.Sprint(f.Source, f.Documents, err), "geheim") {
			t.Errorf("%s: it shows the secret: %v", c.cmdline, err)
		}
	}
	// A certificate that nobody vouches for.
	n := web(t, "kbuild.userdata=https://example.com/ok", paths)
	n.HTTP.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	if _, err := Find(t.Context(), n.Host); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	n = web(t, "kbuild.userdata=https://example.com/busy", paths)
	if _, err := Find(t.Context(), n.Host); !func() bool { _, ok := errors.AsType[outcome.Retry](err); return ok }() {
		t.Errorf("a busy server is not waited for: %v", err)
	}
}

// A kernel parameter's value never holds more than the command line did, and
// what is fetched from is a URL that may be.
func FuzzParameter(f *testing.F) {
	for _, s := range []string{"", "ro kbuild.userdata=https://example.com/a", `a="b c" kbuild.userdata="https://h/p q"`, `kbuild.userdata="`, "kbuild.userdata=http://h kbuild.userdata.sha256=" + strings.Repeat("a", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, cmdline string) {
		where, sum := parameter(cmdline, paramURL), parameter(cmdline, paramSum)
		if len(where) > len(cmdline) || !strings.Contains(cmdline, paramURL) && where != "" {
			t.Errorf("%q out of %q", where, cmdline)
		}
		u, want, err := checkURL(where, sum)
		if err == nil && (u.Host == "" || u.Scheme != "https" && len(want) != sha256.Size) {
			t.Errorf("%q %q: %v %x", where, sum, u, want)
		}
	})
}
