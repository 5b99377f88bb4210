package kubelet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
)

const (
	dockerProbeSocket = "/run/kbuild/no-docker.sock"
	// kubeletEnv holds flags that belong to this boot. kubelet.service reads it.
	kubeletEnv = "/run/kbuild/kubelet.env"
)

// answerDockerProbe saves a starting kubelet five seconds. The cAdvisor in
// kubelets that still know Docker asks Docker for its root directory five
// times, a second apart, before the kubelet does anything else, and then takes
// the default (cadvisor v0.37.5, container/docker/factory.go, RootDir). So,
// until ctx ends, it is answered: the root directory is that default, and the
// version is 0.0.0, too old to be used. The kubelet is then as it would be
// five seconds later. It is told of the socket by cAdvisor's flag --docker.
func answerDockerProbe(ctx context.Context, h *host.Host) error {
	if err := h.WriteFile(kubeletEnv, []byte("KUBELET_KBUILD_ARGS=--docker=unix://"+dockerProbeSocket+"\n"), 0o644); err != nil {
		return err
	}
	os.Remove(h.Path(dockerProbeSocket)) // left by a run that was killed
	l, err := net.Listen("unix", h.Path(dockerProbeSocket))
	if err != nil {
		return fmt.Errorf("cannot answer for Docker: %w", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(dockerAnswers)}
	go s.Serve(l)
	context.AfterFunc(ctx, func() { s.Close() })
	return nil
}

// dockerAnswers are Docker's API as far as the probe goes: /info and /version,
// with or without the API's version in front.
func dockerAnswers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
		w.Header().Set("Api-Version", "1.24")
		io.WriteString(w, "OK")
	case strings.HasSuffix(r.URL.Path, "/info"):
		io.WriteString(w, `{"DockerRootDir":"/var/lib/docker","ServerVersion":"0.0.0"}`)
	case strings.HasSuffix(r.URL.Path, "/version"):
		io.WriteString(w, `{"Version":"0.0.0","ApiVersion":"1.24"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"there is no Docker here"}`)
	}
}
