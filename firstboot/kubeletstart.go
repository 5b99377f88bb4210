package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

const (
	kubeletDir      = "/var/lib/kubelet"
	kubeletConfig   = kubeletDir + "/config.yaml"
	kubeletInstance = kubeletDir + "/instance-config.yaml"
	kubeletFlags    = kubeletDir + "/kubeadm-flags.env"
	// kubeletRunsWith holds the digest of the files above that the running
	// kubelet was started with. It is gone after a reboot, as the kubelet is.
	kubeletRunsWith = "/run/kbuild/kubelet-runs-with"
)

// stepKubeletStart writes the kubelet's configuration, starts it with it
// (kubeadm init phase kubelet-start) and waits until it says that it is well.
// The unit is not enabled, so on every boot it is this step that starts the
// kubelet.
//
// A kubelet takes a while before it looks for pods, so on first boot it starts
// as early as it can, and images, certificates and manifests come meanwhile.
func stepKubeletStart() Step {
	return Step{
		Name: "kubelet-start", Needs: []string{"kubeconfig/kubelet"}, NeedsOf: staticPodsNeed,
		Limit: 5 * time.Minute, Done: kubeletStarted, Do: startKubelet,
	}
}

// staticPodsNeed makes the kubelet wait for the images where it would find
// static pods at once: it must not try to pull theirs.
func staticPodsNeed(r *Run) []string {
	found, err := fs.Glob(r.Host.Root.FS(), strings.TrimPrefix(manifestDir, "/")+"/*")
	if err == nil && len(found) == 0 {
		return nil
	}
	return []string{"images"}
}

// kubeletFiles are what this image wants the kubelet to run with.
func kubeletFiles(r *Run) (files map[string][]byte, digest string, err error) {
	n, files := *r.Node, map[string][]byte{}
	socket := n.Init.NodeRegistration.CRISocket
	if r.Baked.Release.Has(images.FactInstanceConfig) {
		n.Kubelet = maps.Clone(n.Kubelet)
		n.Kubelet["containerRuntimeEndpoint"] = socket
		files[kubeletInstance] = fmt.Appendf(nil, "containerRuntimeEndpoint: %q\n", socket)
	}
	if files[kubeletConfig], err = config.MarshalKubelet(&n, r.Baked.Release); err != nil {
		return nil, "", err
	}
	files[kubeletFlags] = fmt.Appendf(nil, "KUBELET_KUBEADM_ARGS=%q\n", strings.Join(kubeletArguments(&n, r.Baked.Release), " "))
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s %d\n%s", name, len(files[name]), files[name])
	}
	return files, hex.EncodeToString(h.Sum(nil)), nil
}

// kubeletArguments are the flags that kubeadm gives a kubelet beside its
// configuration. The host's name is the node's (see stepHostname), so
// --hostname-override is never needed.
func kubeletArguments(n *config.Node, rel images.Release) []string {
	reg := n.Init.NodeRegistration
	args := map[string]string{}
	if rel.Has(images.FactRemoteRuntimeFlag) {
		args["container-runtime"] = "remote"
	}
	if !rel.Has(images.FactInstanceConfig) {
		args["container-runtime-endpoint"] = reg.CRISocket
	}
	var taints []string
	for _, t := range reg.Taints {
		taints = append(taints, t.ToString())
	}
	if len(taints) > 0 && n.Role == config.RoleWorker {
		// Those of a control plane are set by mark-control-plane, when its
		// API server answers.
		args["register-with-taints"] = strings.Join(taints, ",")
	}
	maps.Copy(args, reg.KubeletExtraArgs)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(args)) {
		out = append(out, "--"+k+"="+args[k])
	}
	return out
}

func kubeletStarted(ctx context.Context, r *Run) (bool, error) {
	files, digest, err := kubeletFiles(r)
	if err != nil {
		return false, err
	}
	for file, want := range files {
		got, err := r.Host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(got) != string(want) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot read %s: %w", file, err)
		}
	}
	runs, err := r.Host.ReadFile(kubeletRunsWith)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read %s: %w", kubeletRunsWith, err)
	}
	if string(runs) != digest {
		return false, nil
	}
	state, err := r.Host.Systemd.Active(ctx, kubeletUnit)
	switch {
	case err != nil:
		return false, err
	case state == "inactive" || state == "failed":
		return false, nil // somebody stopped it
	case state != "active":
		return false, outcome.Retry{After: time.Second, Why: fmt.Sprintf("%s is %s; `journalctl -u %s` says why", kubeletUnit, state, kubeletUnit),
			Wake: func(ctx context.Context) { r.Host.Systemd.Wait(ctx, kubeletUnit) }}
	}
	if err := kubeletHealthy(ctx, r); err != nil {
		return false, outcome.Retry{After: 50 * time.Millisecond, Why: err.Error()}
	}
	return true, nil
}

func startKubelet(ctx context.Context, r *Run) error {
	files, digest, err := kubeletFiles(r)
	if err != nil {
		return err
	}
	if err := r.Host.MkdirAll(kubeletDir, 0o700); err != nil {
		return err
	}
	if err := r.Host.MkdirAll(manifestDir, 0o700); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := r.Host.WriteFile(file, files[file], 0o644); err != nil {
			return err
		}
	}
	// The runtime reads it when the kubelet asks whether there is a network:
	// with it there from the start the node is Ready at its first breath.
	if err := writeCNIConf(r); err != nil {
		return err
	}
	if !r.Node.Role.Joins() { // one that joins has begun with it
		if err := placeClientCertificate(r); err != nil {
			return err
		}
	}
	if err := renewClientCertificate(r); err != nil {
		return err
	}
	if err := restartKubelet(ctx, r); err != nil {
		return err
	}
	return r.Host.WriteFile(kubeletRunsWith, []byte(digest), 0o644)
}

// restartKubelet starts the kubelet, again if it runs. What a starting one asks
// for is answered until ctx, the calling step's, ends.
func restartKubelet(ctx context.Context, r *Run) error {
	if r.Baked.Release.Has(images.FactDockerProbe) {
		if err := answerDockerProbe(ctx, r.Host); err != nil {
			r.Host.Log.Warn("the kubelet will look for Docker for five seconds", slog.Any("error", err))
		}
	}
	err := r.Host.Do("restart "+kubeletUnit, func() error { return r.Host.Systemd.Restart(ctx, kubeletUnit) })
	if err != nil {
		return fmt.Errorf("cannot start the kubelet: %w", err)
	}
	return nil
}

// kubeletHealthy asks the kubelet's own health endpoint, and says why when it
// is not well.
func kubeletHealthy(ctx context.Context, r *Run) error {
	host, port := "127.0.0.1", 10248
	if v, ok := r.Node.Kubelet["healthzBindAddress"].(string); ok && v != "" && v != "0.0.0.0" && v != "::" {
		host = v
	}
	switch v := r.Node.Kubelet["healthzPort"].(type) {
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
		return fmt.Errorf("the kubelet does not answer at %s yet; `journalctl -u %s` says why", url, kubeletUnit)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 256))
		return fmt.Errorf("the kubelet is not healthy: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return nil
}
