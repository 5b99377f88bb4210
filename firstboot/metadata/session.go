package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// session is a conversation with a metadata service at one base.
type session struct {
	cloud
	client   *http.Client
	base     string
	seen     map[string]*answer // by path
	answered bool               // something is there
	key      string             // the token
}

// bases puts the machine's interfaces where a base says LINK.
func bases(patterns []string, h *host.Host) []string {
	var out []string
	for _, p := range patterns {
		if !strings.Contains(p, "LINK") {
			out = append(out, p)
			continue
		}
		links, err := h.Probe.Links()
		if err != nil {
			continue // the other bases remain
		}
		for _, l := range links {
			if l.Up && !l.Loopback {
				out = append(out, strings.Replace(p, "LINK", url.PathEscape(l.Name), 1))
			}
		}
	}
	return out
}

// read gets what the service knows of the machine. errNone says that it has no
// user-data for it.
func (s *session) read(ctx context.Context) (f Found, err error) {
	at, _ := url.Parse(s.base) // a constant, and an interface's name
	where := at.Host
	defer func() {
		if wait, ok := errors.AsType[outcome.Retry](err); ok {
			err = outcome.Retry{Why: fmt.Sprintf("waiting for it at %s: %s", where, wait.Why), After: wait.After}
		} else if err != nil && !errors.Is(err, errNone) {
			err = fmt.Errorf("at %s: %w", where, err)
		}
	}()
	if s.token {
		if err := s.login(ctx); err != nil {
			return Found{}, err
		}
	}
	id, ok, err := s.value(ctx, s.instanceID)
	if err == nil && !ok {
		err = outcome.Retry{Why: "it does not know this machine"}
	}
	if err != nil {
		return Found{}, err
	}
	data, ok, err := s.value(ctx, s.userData)
	if err == nil && (!ok || strings.TrimSpace(data) == "") {
		err = errNone
	}
	if err != nil {
		return Found{}, err
	}
	encoding := s.encoding
	if strings.Contains(encoding, "/") {
		if encoding, _, err = s.value(ctx, encoding); err != nil {
			return Found{}, err
		}
	}
	raw, err := decodeAs(encoding, data)
	if err != nil {
		return Found{}, err
	}
	name, _, err := s.value(ctx, s.hostname)
	if err != nil {
		return Found{}, err
	}
	f = given(strings.TrimSuffix(s.name, " metadata service")+" user-data", raw)
	f.InstanceID, f.Hostname = strings.TrimSpace(id), hostname(name)
	return f, nil
}

// maxLabel is how long the value of a label may be, and a node's name is one.
const maxLabel = 63

// hostname is the first name that a platform gives, without its domain where
// that would be too long for a node.
func hostname(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	if short, _, ok := strings.Cut(f[0], "."); ok && len(f[0]) > maxLabel {
		return short
	}
	return f[0]
}

// login gets a token. It is good for a minute, and the session is over sooner.
func (s *session) login(ctx context.Context) error {
	a, err := ask(ctx, s.client, http.MethodPut, s.base+"latest/api/token", map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
	s.answered = s.answered || a.status != 0
	switch {
	case err != nil:
		return err
	case a.status == http.StatusForbidden:
		return errors.New("it refuses a token (403): the instance metadata service is turned off for this machine; turn it on (HttpEndpoint=enabled), or give user-data otherwise")
	case a.status != http.StatusOK:
		return fmt.Errorf("asked for a token, %w", a.notOK(false))
	case len(a.body) == 0 || len(a.body) > 4096 || strings.ContainsFunc(string(a.body), func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("asked for a token, it answers something else: is this EC2's metadata service?")
	}
	s.key = string(a.body)
	return nil
}

// get gets what stands at a path; ok is false if nothing does.
func (s *session) get(ctx context.Context, path string) (b []byte, ok bool, err error) {
	a := s.seen[path]
	if a == nil {
		header := map[string]string{}
		for k, v := range s.header {
			header[k] = v
		}
		if s.key != "" {
			header["X-aws-ec2-metadata-token"] = s.key
		}
		got, err := ask(ctx, s.client, http.MethodGet, s.base+path, header)
		s.answered = s.answered || got.status != 0
		if err != nil {
			return nil, false, err
		}
		a = &got
		s.seen[path] = a
	}
	if s.proof != "" && a.status < 500 && a.header.Get(s.proof) != s.header[s.proof] {
		return nil, false, fmt.Errorf("the answer lacks the header %s: %s: this is not the %s", s.proof, s.header[s.proof], s.name)
	}
	switch {
	case a.status == http.StatusOK:
		return a.body, true, nil
	case a.status == http.StatusNoContent, a.status == http.StatusNotFound && !s.mends:
		return nil, false, nil
	case a.status == http.StatusUnauthorized && s.token:
		return nil, false, outcome.Retry{Why: "it does not take its own token (401)"}
	}
	path, _, _ = strings.Cut(path, "?")
	return nil, false, fmt.Errorf("asked for %s, %w", path, a.notOK(s.mends && (a.status == http.StatusNotFound || a.status == http.StatusGone)))
}

// value gets one thing that the service tells, text or a JSON member.
func (s *session) value(ctx context.Context, where string) (v string, ok bool, err error) {
	path, member, inJSON := strings.Cut(where, "#")
	b, ok, err := s.get(ctx, path)
	if err != nil || !ok || !inJSON {
		return string(b), ok, err
	}
	v, ok, err = jsonMember(b, member)
	if err != nil {
		err = fmt.Errorf("what stands at %s is not what a %s tells: %w", path, s.name, err)
	}
	return v, ok, err
}

// jsonMember is the text or number at a.b.c of a JSON object; ok is false if
// there is none.
func jsonMember(b []byte, path string) (v string, ok bool, err error) {
	var at map[string]json.RawMessage
	name, rest, more := strings.Cut(path, ".")
	if err := json.Unmarshal(b, &at); err != nil {
		return "", false, errors.New("no JSON object")
	}
	raw, ok := at[name]
	if !ok || string(raw) == "null" {
		return "", false, nil
	}
	if more {
		return jsonMember(raw, rest)
	}
	if err := json.Unmarshal(raw, &v); err == nil {
		return v, true, nil
	}
	var n json.Number
	if err := json.Unmarshal(raw, &n); err != nil {
		return "", false, fmt.Errorf("%s is neither text nor a number", path)
	}
	return n.String(), true, nil
}
