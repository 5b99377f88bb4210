package kubelet

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
)

// The probe is answered as cAdvisor asks: first for the API's version, then
// for the root directory and the version. When the step ends nobody answers.
func TestDockerProbe(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if err := answerDockerProbe(ctx, h); err != nil {
		t.Skip("the test's directory has too long a path for a socket: ", err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", h.Path(dockerProbeSocket))
	}}}
	var got struct{ DockerRootDir, ServerVersion, Driver, Version, ApiVersion string }
	for _, path := range []string{"/_ping", "/v1.24/info", "/v1.24/version"} {
		resp, err := c.Get("http://docker" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if path == "/_ping" {
			continue
		}
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got.DockerRootDir != "/var/lib/docker" || got.ServerVersion != "0.0.0" || got.Version != "0.0.0" || got.Driver != "" {
		t.Errorf("answers %+v: want cAdvisor's default, and a version that it does not use", got)
	}
	env, err := h.ReadFile(kubeletEnv)
	if want := "KUBELET_KBUILD_ARGS=--docker=unix:///run/kbuild/no-docker.sock\n"; err != nil || string(env) != want {
		t.Errorf("%s holds %q (%v), want %q", kubeletEnv, env, err, want)
	}
	cancel()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := c.Get("http://docker/_ping"); err != nil {
			return
		}
	}
	t.Error("it still answers after the step has ended")
}
