package upgrade

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// TestHealth: a new slot is kept only when the static pods answer as their
// manifests ask, and the user's checks end well.
func TestHealth(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	run := h.Run
	h.Run = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		return run(ctx, h.Path(name), args...)
	}
	h.Trial = func() bool { return true }
	m := &node.Machine{Host: h}
	healthy := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !healthy || req.URL.Path != "/healthz" {
			http.Error(w, "etcd failed: reason withheld\nand more", http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := h.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(node.ManifestDir+"/kube-scheduler.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: kube-scheduler\n    livenessProbe:\n      httpGet: {host: "+u.Hostname()+", port: "+u.Port()+", path: /healthz, scheme: HTTPS}\n", 0o600)
	holds := func(why string) {
		t.Helper()
		ok, err := HealthStep().Done(t.Context(), m)
		wait, waits := errors.AsType[outcome.Retry](err)
		if why == "" && (!ok || err != nil) || why != "" && (ok || !waits || !strings.Contains(wait.Why, why)) {
			t.Errorf("%v, %v; want %q", ok, err, why)
		}
	}
	holds("kube-scheduler does not answer its liveness probe: " + s.URL + "/healthz: 500 Internal Server Error: etcd failed: reason withheld")
	healthy = true
	holds("")
	write(checksDir+"/10-disk", "#!/bin/sh\necho disk is slow >&2\nexit 3\n", 0o755)
	holds("/var/lib/kbuild/checks.d/10-disk does not end well")
	holds("disk is slow")
	write(checksDir+"/10-disk", "#!/bin/sh\nexit 0\n", 0o755)
	write(checksDir+"/README", "no program", 0o644)
	holds("")
	write("/usr/lib/kbuild/checks.d/site", "#!/bin/sh\nexit 1\n", 0o755)
	holds("/usr/lib/kbuild/checks.d/site")
	h.Trial = func() bool { return false } // an ordinary boot is nobody's trial
	holds("")
}

// TestProbe: a probe may name a port of its container, and its path may have a
// query.
func TestProbe(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/health" || req.URL.Query().Get("serializable") != "true" {
			http.NotFound(w, req)
		}
	}))
	defer s.Close()
	at := s.Listener.Addr().(*net.TCPAddr)
	get := &corev1.HTTPGetAction{Path: "/health?exclude=NOSPACE&serializable=true", Port: intstr.FromString("probe-port"), Scheme: corev1.URISchemeHTTP}
	ports := []corev1.ContainerPort{{Name: "other", ContainerPort: 1}, {Name: "probe-port", ContainerPort: int32(at.Port)}}
	if err := probe(t.Context(), get, ports); err != nil {
		t.Error(err)
	}
	if err := probe(t.Context(), get, nil); err == nil || !strings.Contains(err.Error(), "probe-port") {
		t.Errorf("a port that the container does not name: %v", err)
	}
}
