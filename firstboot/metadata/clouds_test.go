package metadata

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const document = "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n"

// network is one of our own: what is dialled there is answered by a loopback
// server, or not at all.
type network struct {
	*host.Host
	servers map[string]string // "169.254.169.254:80" → where the loopback server is

	mu     sync.Mutex
	dialed []string
}

// online is a machine with these files and the real client of host.Local, whose
// connections end at handler wherever one of at is dialled.
func online(t testing.TB, files map[string]string, handler http.Handler, at ...string) *network {
	t.Helper()
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	n := &network{Host: machine(t, files), servers: map[string]string{}}
	local, err := host.Local(n.Root.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	local.Root.Close()
	n.HTTP = local.HTTP
	n.HTTP.Transport.(*http.Transport).DialContext = n.dial
	n.Probe.Links = func() ([]host.Link, error) {
		return []host.Link{{Name: "lo", Up: true, Loopback: true}, {Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}}, {Name: "eth1"}}, nil
	}
	if handler != nil {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		for _, a := range at {
			n.servers[a] = s.Listener.Addr().String()
		}
	}
	return n
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, addr)
	to, ok := n.servers[addr]
	n.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errors.New("network is unreachable"))}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to)
}

const v4 = "169.254.169.254:80"

// service is a metadata service as the real one is: what it wants of a request,
// and what it answers.
type service struct {
	marks    map[string]string // files by which the machine is known
	check    func(r *http.Request) int
	header   map[string]string
	answers  map[string]string // by path, and query if there is one
	userData string            // which of them is the user-data; empty: it is in a JSON document
}

func (s service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for k, v := range s.header {
		w.Header().Set(k, v)
	}
	if s.check != nil {
		if code := s.check(r); code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
	}
	path := r.URL.Path
	if r.Method == http.MethodPut {
		path = "PUT " + path
	}
	text, ok := s.answers[path]
	if !ok {
		http.Error(w, "<html>not found</html>", http.StatusNotFound)
		return
	}
	fmt.Fprint(w, text)
}

// services are the real ones' doubles, by the names in the table.
func services(userData string) map[string]service {
	b64 := base64.StdEncoding.EncodeToString([]byte(userData))
	return map[string]service{
		"EC2 metadata service": {
			marks: map[string]string{dmi + "sys_vendor": "Amazon EC2\n"},
			check: func(r *http.Request) int {
				switch {
				case r.Method == http.MethodPut && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "":
					return http.StatusBadRequest
				case r.Method == http.MethodGet && r.Header.Get("X-aws-ec2-metadata-token") != "AQAE-token==":
					return http.StatusUnauthorized
				case r.Header.Get("X-Forwarded-For") != "":
					return http.StatusForbidden
				}
				return http.StatusOK
			},
			answers: map[string]string{
				"PUT /latest/api/token": "AQAE-token==", "/latest/meta-data/instance-id": "i-0123", "/latest/meta-data/local-hostname": "node-7.ec2.internal other.example.org",
				"/latest/user-data": userData,
			},
			userData: "/latest/user-data",
		},
		"GCE metadata service": {
			marks: map[string]string{dmi + "product_name": "Google Compute Engine\n"},
			check: func(r *http.Request) int {
				if r.Header.Get("Metadata-Flavor") != "Google" {
					return http.StatusForbidden
				}
				return http.StatusOK
			},
			header: map[string]string{"Metadata-Flavor": "Google"},
			answers: map[string]string{
				"/computeMetadata/v1/instance/id": "i-0123", "/computeMetadata/v1/instance/hostname": "node-7.europe-west3-a.c.a-project-with-quite-a-long-name.internal",
				"/computeMetadata/v1/instance/attributes/user-data": userData,
			},
			userData: "/computeMetadata/v1/instance/attributes/user-data",
		},
		"Azure metadata service": {
			marks: map[string]string{dmi + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"},
			check: func(r *http.Request) int {
				if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") == "" || r.URL.Query().Get("format") != "json" {
					return http.StatusBadRequest
				}
				return http.StatusOK
			},
			answers: map[string]string{
				"/metadata/instance/compute": `{"azEnvironment":"AzurePublicCloud","name":"vm7","osProfile":{"adminUsername":"a","computerName":"node-7"},"userData":"` + b64 + `","vmId":"i-0123"}`,
			},
		},
		"DigitalOcean metadata service": {
			marks: map[string]string{dmi + "sys_vendor": "DigitalOcean\n"},
			answers: map[string]string{
				"/metadata/v1.json": `{"droplet_id":2756294,"hostname":"node-7","user_data":` + fmt.Sprintf("%q", userData) + `,"dns":{"nameservers":["192.0.2.1"]}}`,
			},
		},
		"Hetzner metadata service": {
			marks:    map[string]string{dmi + "sys_vendor": "Hetzner\n"},
			answers:  map[string]string{"/hetzner/v1/metadata/instance-id": "123456", "/hetzner/v1/metadata/hostname": "node-7", "/hetzner/v1/userdata": userData},
			userData: "/hetzner/v1/userdata",
		},
		"OpenStack metadata service": {
			marks: map[string]string{dmi + "product_name": "OpenStack Nova\n"},
			answers: map[string]string{
				"/openstack/latest/meta_data.json": `{"uuid":"d8e02d56-2648-49a3-bf97-6be8f1204f38","hostname":"node-7","name":"vm7","meta":{},"launch_index":0}`,
				"/openstack/latest/user_data":      userData,
			},
			userData: "/openstack/latest/user_data",
		},
	}
}

// Each platform's service is asked on its platform, as it wants to be asked.
func TestClouds(t *testing.T) {
	all := services(document)
	for _, c := range clouds() {
		s, ok := all[c.name]
		if !ok {
			t.Errorf("no test for the %s", c.name)
			continue
		}
		n := online(t, s.marks, s, v4)
		f, err := Find(t.Context(), n.Host)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(f.UserData()) != document || !strings.HasSuffix(f.Source, "user-data") || !strings.HasPrefix(c.name, strings.TrimSuffix(f.Source, " user-data")) {
			t.Errorf("%s: %q from %q", c.name, f.UserData(), f.Source)
		}
		if f.InstanceID == "" || !strings.HasPrefix(f.Hostname, "node-7") || len(f.Hostname) > maxLabel || strings.Contains(f.Hostname, " ") {
			t.Errorf("%s: instance %q, host name %q", c.name, f.InstanceID, f.Hostname)
		}
		// Each mark alone is enough.
		for _, m := range c.marks {
			n := online(t, map[string]string{m.file: m.begins + "\n"}, s, v4)
			if f, err := Find(t.Context(), n.Host); err != nil || string(f.UserData()) != document {
				t.Errorf("%s, by %s: %v", c.name, m.file, err)
			}
		}
	}
}

// Nobody is asked on a machine of no platform, nor where something nearer has
// user-data.
func TestCloudsNotAsked(t *testing.T) {
	s := services(document)["EC2 metadata service"]
	for name, files := range map[string]map[string]string{
		"no DMI":        nil,
		"other machine": {dmi + "sys_vendor": "QEMU\n", dmi + "product_name": "Standard PC (Q35 + ICH9, 2009)\n", dmi + "chassis_asset_tag": "\n", dmi + "product_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef\n"},
		"file":          {dmi + "sys_vendor": "Amazon EC2\n", userDataFile: document},
		"credential":    {dmi + "sys_vendor": "Amazon EC2\n", "/run/credentials/@system/kbuild.userdata": document},
	} {
		n := online(t, files, s, v4)
		if f, err := Find(t.Context(), n.Host); err != nil || len(n.dialed) > 0 || strings.Contains(f.Source, "EC2") {
			t.Errorf("%s: %v, asked %q, %+v", name, err, n.dialed, f)
		}
	}
}

// A platform that has no user-data for the machine is none.
func TestCloudsNone(t *testing.T) {
	for name, s := range services("") {
		for _, gone := range []bool{false, true} {
			if gone && s.userData != "" {
				delete(s.answers, s.userData)
			} else if gone {
				for path, text := range s.answers {
					s.answers[path] = strings.NewReplacer(`"userData"`, `"other"`, `"user_data":""`, `"user_data":null`).Replace(text)
				}
			}
			n := online(t, s.marks, s, v4)
			if f, err := Find(t.Context(), n.Host); err != nil || f.Source != "" {
				t.Errorf("%s, gone %v: %+v %v", name, gone, f, err)
			}
		}
	}
}

// tampered answers the requests for a path otherwise.
type tampered struct {
	http.Handler
	path   string
	answer http.HandlerFunc
}

func (h tampered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, h.path) {
		h.answer(w, r)
		return
	}
	h.Handler.ServeHTTP(w, r)
}

func code(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>no</html>", n) }
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
}

func google(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	fmt.Fprint(w, "rot13")
}

func truncated(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, "apiVersion: kbuild.dev/v1alpha1\n")
}

func redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "http://192.0.2.66/evil", http.StatusFound)
}

// What goes wrong is an error that names the platform; a Retry where time may
// mend it. Nothing of it is taken for "no user-data".
func TestCloudErrors(t *testing.T) {
	const ec2, gce, azure, do, hetzner, openstack = "EC2 metadata service", "GCE metadata service", "Azure metadata service", "DigitalOcean metadata service", "Hetzner metadata service", "OpenStack metadata service"
	large := strings.Repeat("#", config.MaxSize+1)
	for name, c := range map[string]struct {
		cloud, path string
		answer      http.HandlerFunc
		want        string
		waits       bool
	}{
		"token refused":        {ec2, "token", code(403), "HttpEndpoint=enabled", false},
		"token: bad request":   {ec2, "token", code(400), "asked for a token, it answers 400", false},
		"token: busy":          {ec2, "token", code(503), "503 Service Unavailable", true},
		"token: a page":        {ec2, "token", text("<html> log in </html>"), "is this EC2's", false},
		"token: empty":         {ec2, "token", text(""), "is this EC2's", false},
		"token not taken":      {ec2, "user-data", code(401), "its own token (401)", true},
		"machine unknown":      {ec2, "instance-id", code(404), "does not know this machine", true},
		"forbidden":            {ec2, "user-data", code(403), "latest/user-data, it answers 403", false},
		"redirect":             {ec2, "user-data", redirect, "302 Found", false},
		"EC2, truncated":       {ec2, "user-data", truncated, "breaks off", true},
		"EC2, large":           {ec2, "user-data", text(large), "larger than", false},
		"EC2, broken":          {ec2, "user-data", code(500), "500", true},
		"EC2, name broken":     {ec2, "local-hostname", code(502), "502", true},
		"another service":      {gce, "id", text("i-0123"), "lacks the header Metadata-Flavor: Google", false},
		"GCE, busy":            {gce, "user-data", code(503), "503", true},
		"GCE, encoding":        {gce, "encoding", google, "rot13", false},
		"Azure, not yet":       {azure, "compute", code(404), "404", true},
		"Azure, gone":          {azure, "compute", code(410), "410", true},
		"Azure, too many":      {azure, "compute", code(429), "429", true},
		"Azure, bad request":   {azure, "compute", code(400), "compute, it answers 400", false},
		"Azure, a page":        {azure, "compute", text("<html>"), "no JSON object", false},
		"Azure, no base64":     {azure, "compute", text(`{"vmId":"v","userData":"%%"}`), "not the base64", false},
		"Azure, odd":           {azure, "compute", text(`{"vmId":{},"userData":"YTogYgo="}`), "vmId is neither text nor a number", false},
		"DigitalOcean, a list": {do, "v1.json", text(`["a"]`), "no JSON object", false},
		"DigitalOcean, none":   {do, "v1.json", code(404), "does not know this machine", true},
		"Hetzner, busy":        {hetzner, "userdata", code(429), "429", true},
		"Hetzner, gone":        {hetzner, "userdata", code(410), "410", false},
		"OpenStack, unknown":   {openstack, "meta_data.json", code(404), "does not know this machine", true},
		"OpenStack, nova down": {openstack, "user_data", code(500), "500", true},
		"OpenStack, cut JSON":  {openstack, "meta_data.json", text(`{"uuid":`), "no JSON object", false},
		"a script":             {hetzner, "userdata", text("#!/bin/sh\ntrue\n"), "cloud-init runs", false},
	} {
		s := services(document)[c.cloud]
		n := online(t, s.marks, tampered{s, c.path, c.answer}, v4)
		f, err := Find(t.Context(), n.Host)
		_, waits := errors.AsType[outcome.Retry](err)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.cloud) {
			t.Errorf("%s: %v (%+v)", name, err, f)
		}
		if err != nil && waits != c.waits {
			t.Errorf("%s: waiting helps: %v, want %v", name, waits, c.waits)
		}
	}
}

// A service that is not reached yet, or hangs, is waited for, and is named; the
// words stay the same from try to try.
func TestCloudNotReached(t *testing.T) {
	s := services(document)["GCE metadata service"]
	hangs := make(chan struct{})
	defer close(hangs) // before the servers wait for their handlers
	const short = 50 * time.Millisecond
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		timeout time.Duration
		tries   int
		want    string
	}{
		"no network": {nil, 0, 2, "network is unreachable"},
		"it hangs":   {func(http.ResponseWriter, *http.Request) { <-hangs }, short, 2, "no answer in time"},
		"it hangs up": {func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
		}, 0, 2, "EOF"},
		"it dribbles": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			w.Write([]byte("a"))
			w.(http.Flusher).Flush()
			<-hangs
		}, short, 1, "no answer in time"},
	} {
		var h http.Handler
		if c.handler != nil {
			h = c.handler
		}
		n := online(t, s.marks, h, v4)
		n.HTTP.Timeout = c.timeout
		words := ""
		for range c.tries {
			_, err := Find(t.Context(), n.Host)
			if _, ok := errors.AsType[outcome.Retry](err); !ok || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "GCE metadata service: waiting for it at 169.254.169.254") {
				t.Fatalf("%s: %v", name, err)
			}
			if words != "" && words != err.Error() {
				t.Errorf("%s: it says something else each time:\n%s\n%s", name, words, err)
			}
			words = err.Error()
		}
	}
}

// A service that was busy is asked again, and for how long it asks.
func TestCloudBusyThenOK(t *testing.T) {
	for name, s := range services(document) {
		busy := true
		n := online(t, s.marks, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if busy {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			s.ServeHTTP(w, r)
		}), v4)
		_, err := Find(t.Context(), n.Host)
		if late, ok := errors.AsType[outcome.Retry](err); !ok || late.After != 7*time.Second {
			t.Errorf("%s, busy: %v", name, err)
		}
		busy = false
		if f, err := Find(t.Context(), n.Host); err != nil || string(f.UserData()) != document {
			t.Errorf("%s, then: %v", name, err)
		}
	}
	for in, want := range map[string]time.Duration{"": 0, "-1": 0, "soon": 0, "3": 3 * time.Second, "86400": time.Minute} {
		if got := (answer{header: http.Header{"Retry-After": {in}}}).retryAfter(); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// Where IPv4 leads nowhere, the service is asked over IPv6.
func TestCloudsIPv6(t *testing.T) {
	all := services(document)
	for name, at := range map[string]string{
		"EC2 metadata service":       "[fd00:ec2::254]:80",
		"Hetzner metadata service":   "[fe80::a9fe:a9fe%eth0]:80",
		"OpenStack metadata service": "[fe80::a9fe:a9fe%eth0]:80",
	} {
		n := online(t, all[name].marks, all[name], at)
		if f, err := Find(t.Context(), n.Host); err != nil || string(f.UserData()) != document {
			t.Errorf("%s: %v, asked at %q", name, err, n.dialed)
		}
		if !slices.Equal(slices.Compact(n.dialed), []string{v4, at}) {
			t.Errorf("%s: asked at %q", name, n.dialed)
		}
	}
}

// Bytes that a platform's text cannot carry come as base64, and as gzip.
func TestCloudEncodings(t *testing.T) {
	packed := string(zipped(t, document))
	b64 := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct {
		cloud  string
		change map[string]string
	}{
		"EC2, gzip":       {"EC2 metadata service", map[string]string{"/latest/user-data": packed}},
		"GCE, base64":     {"GCE metadata service", map[string]string{"/computeMetadata/v1/instance/attributes/user-data": b64([]byte(document)), "/computeMetadata/v1/instance/attributes/user-data-encoding": "base64\n"}},
		"Azure, gzip":     {"Azure metadata service", map[string]string{"/metadata/instance/compute": `{"vmId":"v","userData":"` + b64([]byte(packed)) + `"}`}},
		"Hetzner, base64": {"Hetzner metadata service", map[string]string{"/hetzner/v1/userdata": b64([]byte(document)) + "\n"}},
		"Hetzner, both":   {"Hetzner metadata service", map[string]string{"/hetzner/v1/userdata": b64([]byte(packed))}},
		"OpenStack, gzip": {"OpenStack metadata service", map[string]string{"/openstack/latest/user_data": packed}},
	} {
		s := services(document)[c.cloud]
		maps.Copy(s.answers, c.change)
		n := online(t, s.marks, s, v4)
		if f, err := Find(t.Context(), n.Host); err != nil || string(f.UserData()) != document {
			t.Errorf("%s: %v %q", name, err, f.UserData())
		}
	}
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// Whatever a service answers, the outcome is user-data or an error.
func FuzzCloud(f *testing.F) {
	all := clouds()
	for i := range all {
		f.Add(uint8(i), uint16(200), "i-0123", document, "node-7")
		f.Add(uint8(i), uint16(200), `{"uuid":"u","hostname":"n","vmId":"v","userData":"YTogYgo=","osProfile":{"computerName":"n"},"droplet_id":7,"user_data":"a: b"}`, "a: b", "")
		f.Add(uint8(i), uint16(404), "", "", "")
	}
	f.Fuzz(func(t *testing.T, kind uint8, status uint16, id, data, name string) {
		c := all[int(kind)%len(all)]
		rt := roundTrip(func(r *http.Request) *http.Response {
			path := strings.TrimPrefix(r.URL.RequestURI(), "/")
			h, code, body := http.Header{"Metadata-Flavor": {"Google"}}, 200, data
			place := func(where string) bool { p, _, _ := strings.Cut(where, "#"); return strings.HasSuffix(path, p) }
			switch {
			case r.Method == http.MethodPut:
				body = "token"
			case place(c.instanceID):
				body = id
			case place(c.userData):
				code = int(status)
			case place(c.hostname):
				body = name
			}
			return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1, Request: r}
		})
		s := &session{cloud: c, client: &http.Client{Transport: rt}, base: "http://x/", seen: map[string]*answer{}}
		found, err := s.read(t.Context())
		if err == nil {
			found, err = unwrapped(found)
		}
		if err == nil && (found.Source == "" || len(found.Documents) != 1) {
			t.Errorf("%+v", found)
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
