package metadata

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
)

// Kernel parameters.
const (
	paramURL = "kbuild.userdata"
	paramSum = "kbuild.userdata.sha256"
)

// fromURL fetches user-data from where the kernel command line says. What it
// fetches decides who this node is, so it must come over TLS or be what the
// command line's hash is of.
func fromURL(ctx context.Context, h *host.Host) (Found, error) {
	cmdline, err := readFile(h, "/proc/cmdline")
	if err != nil {
		return Found{}, errNone // no kernel command line, nothing on it
	}
	where, sum := parameter(string(cmdline), paramURL), parameter(string(cmdline), paramSum)
	if where == "" && sum == "" {
		return Found{}, errNone
	}
	u, want, err := checkURL(where, sum)
	if err != nil {
		return Found{}, err
	}
	// A query may hold a secret: it is not shown.
	shown := u.Scheme + "://" + u.Host + u.EscapedPath()
	client := *h.HTTP
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		req.Header.Del("Referer") // it would tell the query
		switch {
		case len(via) >= 5:
			return errors.New("it redirects more than 5 times")
		case u.Scheme == "https" && req.URL.Scheme != "https":
			return errors.New("it redirects from https to " + req.URL.Scheme)
		}
		return nil
	}
	a, err := ask(ctx, &client, http.MethodGet, u.String(), nil)
	switch {
	case err != nil:
	case a.status != http.StatusOK:
		err = fmt.Errorf("%w; put the file there, or correct %s", a.notOK(false), paramURL)
	case want != nil && sha256.Sum256(a.body) != [sha256.Size]byte(want):
		err = fmt.Errorf("what it sends has sha256 %x, not the %x that %s asks for: correct one of the two", sha256.Sum256(a.body), want, paramSum)
	}
	if err != nil {
		return Found{}, fmt.Errorf("%s: %w", shown, err)
	}
	return given("URL "+shown, a.body), nil
}

// checkURL checks the two parameters; want is nil if there is no hash.
func checkURL(where, sum string) (u *url.URL, want []byte, err error) {
	u, err = url.Parse(where)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, nil, fmt.Errorf("%s is no https:// or http:// URL: write %s=https://HOST/PATH", paramURL, paramURL)
	}
	if sum != "" {
		if want, err = hex.DecodeString(sum); err != nil || len(want) != sha256.Size {
			return nil, nil, fmt.Errorf("%s is not 64 hexadecimal digits: write what `sha256sum FILE` prints", paramSum)
		}
	}
	if u.Scheme == "http" && want == nil {
		return nil, nil, fmt.Errorf("%s is an http:// URL, which anyone on the way can answer: use https://, or add %s=HEX with what `sha256sum FILE` prints", paramURL, paramSum)
	}
	return u, want, nil
}

// parameter is the value of a kernel parameter, the last if it is there more
// than once. Double quotes hold a value with spaces together (kernel
// parameters, "The kernel's command-line parameters").
func parameter(cmdline, name string) string {
	value, quoted := "", false
	words := strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for _, w := range words {
		if v, ok := strings.CutPrefix(strings.ReplaceAll(w, `"`, ""), name+"="); ok {
			value = v
		}
	}
	return value
}
