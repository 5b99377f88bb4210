// Package kubelet is this machine's kubelet: its files, its certificate and its
// unit.
//
// What always holds: what the kubelet is to run with follows from the node's
// configuration and the image alone; it is restarted when, and only when, that is
// not what it runs with; and a certificate that it has rotated itself is left to
// it while it is in force.
package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

const (
	Unit = "kubelet.service"
)

// Restart starts the kubelet, again if it runs. What a starting one asks
// for is answered until ctx, the calling step's, ends.
func Restart(ctx context.Context, m *node.Machine) error {
	if m.Baked.Release.Has(images.FactDockerProbe) {
		if err := answerDockerProbe(ctx, m.Host); err != nil {
			m.Host.Log.Warn("the kubelet will look for Docker for five seconds", slog.Any("error", err))
		}
	}
	err := m.Host.Do("restart "+Unit, func() error { return m.Host.Systemd.Restart(ctx, Unit) })
	if err != nil {
		return fmt.Errorf("cannot start the kubelet: %w", err)
	}
	return nil
}

// Healthy asks the kubelet's own health endpoint, and says why when it
// is not well.
func Healthy(ctx context.Context, m *node.Machine) error {
	host, port := "127.0.0.1", 10248
	conf := m.Node.Kubelet
	if b, err := m.Host.ReadFile(ConfigFile); err == nil { // with the user's patches
		conf = map[string]any{}
		if err := yaml.Unmarshal(b, &conf); err != nil {
			return fmt.Errorf("cannot read %s: %w", ConfigFile, err)
		}
	}
	if v, ok := conf["healthzBindAddress"].(string); ok && v != "" && v != "0.0.0.0" && v != "::" {
		host = v
	}
	switch v := conf["healthzPort"].(type) {
	case int64:
		port = int(v)
	case float64:
		port = int(v)
	}
	if port == 0 {
		return nil // the user turned it off
	}
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/healthz"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// No proxy: the kubelet is on this machine.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the kubelet does not answer at %s yet; `journalctl -u %s` says why", url, Unit)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 256))
		return fmt.Errorf("the kubelet is not healthy: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return nil
}

// LastWords is what the kubelet said last, when it does not run.
func LastWords(ctx context.Context, m *node.Machine) string {
	if state, err := m.Host.Systemd.Active(ctx, Unit); err != nil || state == "active" {
		return ""
	}
	// What systemd says about the unit is none of the kubelet's words.
	out, err := m.Host.Run(ctx, "journalctl", "--boot", "--no-pager", "--output=cat", "--lines=500", "_SYSTEMD_UNIT="+Unit)
	if err != nil {
		return ""
	}
	if words, err := host.LastWords(bytes.NewReader(out)); err == nil && words != "" {
		return fmt.Sprintf("; %s has ended: %s", Unit, words)
	}
	return ""
}
