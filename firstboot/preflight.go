package firstboot

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/kbuild/kbuild/firstboot/preflight"
)

// preflightFile says that the machine has passed preflight. From then on what
// the checks look for, free ports and missing files, is ours.
const preflightFile = "/var/lib/kbuild/preflight.json"

// preflightPassed is the content of preflightFile.
type preflightPassed struct {
	Version  string    `json:"version"` // of Kubernetes
	Time     time.Time `json:"time"`
	Warnings []string  `json:"warnings,omitempty"`
}

// preflightRetry is how often a machine that fails is looked at again: someone
// may be mending it.
const preflightRetry = 5 * time.Second

// stepPreflight is kubeadm's phase of that name: it looks whether this machine
// can become a control plane, before anything is made of it.
func stepPreflight() Step {
	return Step{Name: "preflight", Needs: []string{"hostname"}, Done: preflightDone, Do: preflightDo}
}

func preflightDone(_ context.Context, r *Run) (bool, error) {
	return r.Host.Exists(preflightFile) || r.Host.Exists("/etc/kubernetes/kubelet.conf"), nil
}

func preflightDo(ctx context.Context, r *Run) error {
	checks := preflight.Init(preflight.Machine{Host: r.Host, Baked: r.Baked, Node: r.Node, Proxy: http.ProxyFromEnvironment})
	found := preflight.Run(ctx, checks, r.Node.Init.NodeRegistration.IgnorePreflightErrors)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := found.Err(); err != nil {
		return Retry{After: preflightRetry, Why: err.Error()}
	}
	passed := preflightPassed{Version: r.Baked.Release.Version, Time: r.Host.Now().UTC()}
	for _, w := range found.Warnings {
		r.Host.Log.Warn("preflight: "+w.What, slog.String("check", w.Check), slog.String("remedy", w.Remedy))
		passed.Warnings = append(passed.Warnings, w.String())
	}
	b, err := json.MarshalIndent(passed, "", " ")
	if err != nil {
		return fmt.Errorf("cannot record the outcome of preflight: %w", err)
	}
	return r.Host.WriteFile(preflightFile, append(b, '\n'), 0o644)
}
