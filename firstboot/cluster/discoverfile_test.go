package cluster

import (
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
)

const discoveryConf = "/etc/kubernetes/discovery.conf"

// fileMachine is a machine with a discovery file.
func fileMachine(t *testing.T, content string) *host.Host {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	h := &host.Host{Root: root, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if content == "" {
		return h
	}
	file := filepath.Join(dir, discoveryConf)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
	return h
}

func goodStranger(t *testing.T) *stranger {
	return newStranger(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

// withUser adds a user to a kubeconfig of one cluster and makes both current.
func withUser(conf, user string) string {
	return conf + "users: [{name: u, user: " + user + "}]\ncontexts: [{name: c, context: {cluster: \"\", user: u}}]\ncurrent-context: c\n"
}

func TestDiscoverByFile(t *testing.T) {
	s, newer := goodStranger(t), goodStranger(t)
	s.info = map[string]string{"kubeconfig": kubeconfigOf(newer.ca, newer.URL)}
	found, err := DiscoverByFile(t.Context(), fileMachine(t, kubeconfigOf(s.ca, s.URL)), discoveryConf)
	if err != nil || found.Server != newer.URL || len(parseCerts(found.CA)) != 1 || !parseCerts(found.CA)[0].Equal(newer.ca) || found.User != nil {
		t.Errorf("%+v, %v: want what the cluster's cluster-info says now, and no user", found, err)
	}
	s.code, s.auth = http.StatusForbidden, "Bearer t0"
	found, err = DiscoverByFile(t.Context(), fileMachine(t, withUser(kubeconfigOf(s.ca, s.URL), "{token: t0}")), discoveryConf)
	if err != nil || found.Server != s.URL || found.User == nil || found.User.Token != "t0" {
		t.Errorf("%+v, %v: want what the file says where cluster-info is hidden, and its token", found, err)
	}
}

func TestDiscoverByFileRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		conf  func(s *stranger) string
		want  string
		mends bool
	}{
		"missing":       {func(*stranger) string { return "" }, "cannot be read", true},
		"no kubeconfig": {func(*stranger) string { return "secret: [" }, "is no kubeconfig", false},
		"no cluster":    {func(*stranger) string { return "apiVersion: v1\nkind: Config\n" }, "names no cluster", false},
		"no authority": {func(s *stranger) string {
			return "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: \"" + s.URL + "\"}}]\n"
		}, "no certificate authority", false},
		"no https": {func(s *stranger) string { return kubeconfigOf(s.ca, "http://127.0.0.1:1") }, "no https URL", false},
		"a program for credentials": {func(s *stranger) string {
			return withUser(kubeconfigOf(s.ca, s.URL), "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: /bin/true}}")
		}, "program for credentials", false},
		"credentials elsewhere": {func(s *stranger) string {
			return withUser(kubeconfigOf(s.ca, s.URL), "{tokenFile: /does/not/exist}")
		}, "cannot be read", false},
		"no cluster-info yet": {func(s *stranger) string { s.code = http.StatusNotFound; return kubeconfigOf(s.ca, s.URL) }, "no ConfigMap cluster-info yet", true},
		"nobody listens":      {func(s *stranger) string { s.Close(); return kubeconfigOf(s.ca, s.URL) }, "the API server does not answer", true},
		"another authority":   {func(s *stranger) string { return kubeconfigOf(goodStranger(t).ca, s.URL) }, "not the cluster's API server", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := goodStranger(t)
			_, err := DiscoverByFile(t.Context(), fileMachine(t, c.conf(s)), discoveryConf)
			if kind := kindOf(err); !strings.Contains(fmt.Sprint(err), c.want) || kind != kindIf(c.mends) {
				t.Errorf("%v (%s), want one with %q (%s)", err, kind, c.want, kindIf(c.mends))
			}
		})
	}
}

// TestDiscoverByURL fetches the file from a server that the system's
// authorities vouch for. Those are read once in a process, so a second one is
// asked.
func TestDiscoverByURL(t *testing.T) {
	if url := os.Getenv("DISCOVERY_URL"); url != "" {
		found, err := DiscoverByFile(t.Context(), fileMachine(t, ""), url)
		if err != nil || found.Server != os.Getenv("DISCOVERY_SERVER") {
			t.Errorf("%+v, %v", found, err)
		}
		for path, want := range map[string]string{"/missing": "404 Not Found", "/cut": "broke off"} {
			if _, err := DiscoverByFile(t.Context(), fileMachine(t, ""), url+path); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want one with %q", path, err, want)
			}
		}
		return
	}
	s := goodStranger(t)
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/cut":
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("apiVersion"))
		default:
			w.Write([]byte(kubeconfigOf(s.ca, s.URL)))
		}
	}))
	defer web.Close()
	_, err := DiscoverByFile(t.Context(), fileMachine(t, ""), web.URL)
	if kindOf(err) != "retry" || !strings.Contains(err.Error(), "cannot be fetched") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
	trust := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(trust, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestDiscoverByURL$", "-test.v")
	cmd.Env = append(os.Environ(), "DISCOVERY_URL="+web.URL, "DISCOVERY_SERVER="+s.URL, "SSL_CERT_FILE="+trust)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestDiscoverByURL") {
		t.Errorf("%v\n%s", err, out)
	}
}

// FuzzDiscoveryFile reads a discovery file: bytes of a server. What is taken
// names an https server and an authority, and runs no program.
func FuzzDiscoveryFile(f *testing.F) {
	web := httptest.NewTLSServer(nil) // its certificate is an authority, too
	defer web.Close()
	conf := kubeconfigOf(web.Certificate(), "https://192.0.2.1:6443")
	for _, seed := range []string{"", conf, "clusters: [{name: a}]", "contexts: [{name: c}]\ncurrent-context: c", "clusters: [{name: a, cluster: {certificate-authority: ../../etc/passwd}}]",
		withUser(conf, "{exec: {command: /bin/true}}"), withUser(conf, "{tokenFile: /etc/shadow}"), "users: [{name: u, user: null}]\ncontexts: [{name: c, context: null}]\ncurrent-context: c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := readDiscoveryFile(fileMachine(t, ""), discoveryConf, b)
		if err != nil && kindOf(err) == "neither" {
			t.Errorf("an error that is no outcome: %v", err)
		}
		if err == nil && (!strings.HasPrefix(found.Server, "https://") || len(parseCerts(found.CA)) == 0 || found.User != nil && (found.User.Exec != nil || found.User.AuthProvider != nil)) {
			t.Errorf("taken: %+v", found)
		}
	})
}
