package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// stepKubeletStart writes the kubelet's configuration, starts it with it
// (kubeadm init phase kubelet-start) and waits until it says that it is well.
// The unit is not enabled, so on every boot it is this step that starts the
// kubelet.
//
// A kubelet takes a while before it looks for pods, so on first boot it starts
// as early as it can, and images, certificates and manifests come meanwhile.
func stepKubeletStart() converge.Step {
	return converge.Step{
		Name: "kubelet-start", NeedsOf: staticPodsNeed,
		Limit: 5 * time.Minute, Done: kubeletStarted, Do: startKubelet,
	}
}

// staticPodsNeed makes the kubelet wait for the images where it would find
// static pods at once: it must not try to pull theirs.
func staticPodsNeed(m *node.Machine) []string {
	found, err := fs.Glob(m.Host.Root.FS(), strings.TrimPrefix(node.ManifestDir, "/")+"/*")
	if err == nil && len(found) == 0 {
		return nil
	}
	return []string{"images"}
}

func kubeletStarted(ctx context.Context, m *node.Machine) (bool, error) {
	files, digest, err := kubelet.Files(m)
	if err != nil {
		return false, err
	}
	for file, want := range files {
		got, err := m.Host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(got) != string(want) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot read %s: %w", file, err)
		}
	}
	runs, err := m.Host.ReadFile(kubelet.RunsWithFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read %s: %w", kubelet.RunsWithFile, err)
	}
	if string(runs) != digest {
		return false, nil
	}
	state, err := m.Host.Systemd.Active(ctx, kubelet.Unit)
	switch {
	case err != nil:
		return false, err
	case state == "inactive" || state == "failed":
		return false, nil // somebody stopped it
	case state != "active":
		return false, outcome.Retry{After: time.Second, Why: fmt.Sprintf("%s is %s; `journalctl -u %s` says why", kubelet.Unit, state, kubelet.Unit),
			Wake: func(ctx context.Context) { m.Host.Systemd.Wait(ctx, kubelet.Unit) }}
	}
	if err := kubelet.Healthy(ctx, m); err != nil {
		return false, outcome.Retry{After: 50 * time.Millisecond, Why: err.Error()}
	}
	return true, nil
}

func startKubelet(ctx context.Context, m *node.Machine) error {
	files, digest, err := kubelet.Files(m)
	if err != nil {
		return err
	}
	if err := m.Host.MkdirAll(kubelet.Dir, 0o700); err != nil {
		return err
	}
	if err := m.Host.MkdirAll(node.ManifestDir, 0o700); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := m.Host.WriteFile(file, files[file], 0o644); err != nil {
			return err
		}
	}
	// The runtime reads it when the kubelet asks whether there is a network:
	// with it there from the start the node is Ready at its first breath.
	if err := writeCNIConf(m); err != nil {
		return err
	}
	if !m.Node.Role.Joins() { // one that joins has begun with it
		if err := kubelet.PlaceFirstCertificate(m); err != nil {
			return err
		}
	}
	if err := kubelet.RenewCertificate(m); err != nil {
		return err
	}
	if err := kubelet.Restart(ctx, m); err != nil {
		return err
	}
	return m.Host.WriteFile(kubelet.RunsWithFile, []byte(digest), 0o644)
}
