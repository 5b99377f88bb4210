package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

const (
	kubeletDir    = "/var/lib/kubelet"
	kubeletConfig = kubeletDir + "/config.yaml"
	kubeletFlags  = kubeletDir + "/kubeadm-flags.env"
	// kubeletRunsWith holds the digest of the files above that the running
	// kubelet was started with. It is gone after a reboot, as the kubelet is.
	kubeletRunsWith = "/run/kbuild/kubelet-runs-with"
)

// stepKubeletStart writes the kubelet's configuration and starts it with it
// (kubeadm init phase kubelet-start). The unit is not enabled, so on every boot
// it is this step that starts the kubelet, after containerd has its images.
func stepKubeletStart() Step {
	return Step{Name: "kubelet-start", Limit: 5 * time.Minute, Done: kubeletStarted, Do: startKubelet}
}

// kubeletFiles are what this image wants the kubelet to run with.
func kubeletFiles(r *Run) (files map[string][]byte, digest string, err error) {
	conf, err := config.MarshalKubelet(r.Node, r.Baked.Release)
	if err != nil {
		return nil, "", err
	}
	env := fmt.Appendf(nil, "KUBELET_KUBEADM_ARGS=%q\n", strings.Join(kubeletArguments(r.Node, r.Baked.Release), " "))
	h := sha256.New()
	h.Write(conf)
	h.Write(env)
	return map[string][]byte{kubeletConfig: conf, kubeletFlags: env}, hex.EncodeToString(h.Sum(nil)), nil
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
	args["container-runtime-endpoint"] = reg.CRISocket
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
	if err != nil {
		return false, err
	}
	return state == "active" || state == "activating", nil
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
	if err := r.Host.BeforeChange("restart " + kubeletUnit); err != nil {
		return err
	}
	if err := r.Host.Systemd.Restart(ctx, kubeletUnit); err != nil {
		return fmt.Errorf("cannot start the kubelet: %w", err)
	}
	return r.Host.WriteFile(kubeletRunsWith, []byte(digest), 0o644)
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
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + path.Join("/", "healthz")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the kubelet does not answer at %s; `journalctl -u %s` says why", url, kubeletUnit)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 256))
		return fmt.Errorf("the kubelet is not healthy: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return nil
}
