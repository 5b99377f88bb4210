package upgrade

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/images"
)

// checksDir is where an administrator puts checks of his own, beside those that
// are baked.
const checksDir = "/var/lib/kbuild/checks.d"

// checkLimit is how long one check may take.
const checkLimit = time.Minute

// HealthStep judges the first boots of a new slot, when all else of the list
// holds: the boot loader keeps the slot only then (systemd-bless-boot.service). Beside what the other steps have seen, every
// static pod must answer its own liveness probe, and every check of the user's
// end well.
func HealthStep() converge.Step {
	return converge.Step{
		Name: "health",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			if !slot.Tried(m.Host) {
				return true, nil
			}
			if err := podsAlive(ctx, m); err != nil {
				return false, outcome.Retry{After: 2 * time.Second, Why: err.Error()}
			}
			if err := userChecks(ctx, m); err != nil {
				return false, outcome.Retry{After: 10 * time.Second, Why: err.Error()}
			}
			return true, nil
		},
		Do: func(context.Context, *node.Machine) error { return errors.New("health checks cannot be repaired") },
	}
}

// podsAlive asks the static pods as the kubelet does.
func podsAlive(ctx context.Context, m *node.Machine) error {
	names, err := m.Host.Entries(node.ManifestDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if path.Ext(name) != ".yaml" {
			continue
		}
		b, err := m.Host.ReadFile(path.Join(node.ManifestDir, name))
		if err != nil {
			return err
		}
		var pod corev1.Pod
		if err := yaml.Unmarshal(b, &pod); err != nil {
			return fmt.Errorf("cannot read %s: %w", path.Join(node.ManifestDir, name), err)
		}
		for _, c := range pod.Spec.Containers {
			if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet == nil {
				continue
			}
			if err := probe(ctx, c.LivenessProbe.HTTPGet, c.Ports); err != nil {
				return fmt.Errorf("%s does not answer its liveness probe: %w", c.Name, err)
			}
		}
	}
	return nil
}

// probe makes one request of a liveness probe, as the kubelet does: the probe's
// port may be one of the container's by its name, and whoever answers is not
// asked for a certificate.
func probe(ctx context.Context, get *corev1.HTTPGetAction, ports []corev1.ContainerPort) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	host := get.Host
	if host == "" {
		host = "127.0.0.1"
	}
	port := get.Port.String()
	for _, p := range ports {
		if p.Name == port {
			port = strconv.Itoa(int(p.ContainerPort))
		}
	}
	at := strings.ToLower(string(get.Scheme)) + "://" + net.JoinHostPort(host, port) + get.Path
	if get.Scheme == "" {
		at = "http" + at
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("%s: %s: %s", at, resp.Status, firstLine(string(b)))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// userChecks runs the checks one after another: no arguments, the status says
// how it went and what is printed why.
func userChecks(ctx context.Context, m *node.Machine) error {
	for _, dir := range []string{images.BakedChecks, checksDir} {
		names, err := m.Host.Entries(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			file := path.Join(dir, name)
			info, err := m.Host.Root.Stat(strings.TrimPrefix(file, "/"))
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, checkLimit)
			_, err = m.Host.Run(ctx, file)
			cancel()
			if err != nil {
				return fmt.Errorf("check %s does not end well: %w", file, err)
			}
		}
	}
	return nil
}
