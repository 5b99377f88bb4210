package firstboot

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/preflight"
)

// preflightFile says that the machine has passed preflight. From then on what
// the checks look for, free ports and missing files, is ours.
const preflightFile = "/var/lib/kbuild/preflight.json"

// preflightPassed is the content of preflightFile.
type preflightPassed struct {
	MadeFrom string    `json:"madeFrom"` // see node.MadeFrom
	Version  string    `json:"version"`  // of Kubernetes
	Time     time.Time `json:"time"`
	Warnings []string  `json:"warnings,omitempty"`
}

// preflightRetry is how often a machine that fails is looked at again: someone
// may be mending it.
const preflightRetry = 5 * time.Second

// stepPreflight is kubeadm's phase of that name: it looks whether this machine
// can become a node of its role, before anything is made of it.
func stepPreflight() converge.Step {
	return converge.Step{
		Name: "preflight", Done: preflightDone(preflightFile),
		Do: func(ctx context.Context, m *node.Machine) error {
			if m.Node.Role.Joins() {
				return preflightDo(ctx, m, preflightFile, preflight.Join)
			}
			return preflightDo(ctx, m, preflightFile, preflight.Init)
		},
	}
}

// preflightControlPlaneFile is preflightFile for what can be checked only when
// the cluster is known.
const preflightControlPlaneFile = "/var/lib/kbuild/preflight-control-plane.json"

// stepPreflightControlPlane looks whether this machine can become a control
// plane of the cluster that was found.
func stepPreflightControlPlane() converge.Step {
	return converge.Step{
		Name: "preflight/control-plane", Done: preflightDone(preflightControlPlaneFile),
		Do: func(ctx context.Context, m *node.Machine) error {
			if m.Node.Cluster.ControlPlaneEndpoint == "" {
				return outcome.Refused{Why: "the cluster has no stable endpoint (controlPlaneEndpoint in ConfigMap kubeadm-config), so it can have one control-plane node only", Remedy: "give the first control plane an `endpoint`; it cannot be added later without new certificates"}
			}
			return preflightDo(ctx, m, preflightControlPlaneFile, preflight.JoinControlPlane)
		},
	}
}

func preflightDone(file string) func(context.Context, *node.Machine) (bool, error) {
	return func(_ context.Context, m *node.Machine) (bool, error) {
		passed, err := host.ReadJSON[preflightPassed](m.Host, file)
		return err == nil && !passed.Time.IsZero() && passed.MadeFrom == node.MadeFrom(m.Node) || m.Joined(), err
	}
}

func preflightDo(ctx context.Context, m *node.Machine, file string, checksOf func(*node.Machine) []preflight.Check) error {
	checks := checksOf(m)
	found := preflight.Run(ctx, checks, m.Node.Init.NodeRegistration.IgnorePreflightErrors)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := found.Err(); err != nil {
		return outcome.Retry{After: preflightRetry, Why: err.Error()}
	}
	passed := preflightPassed{MadeFrom: node.MadeFrom(m.Node), Version: m.Baked.Release.Version, Time: m.Host.Now().UTC()}
	for _, w := range found.Warnings {
		m.Host.Log.Warn("preflight: "+w.What, slog.String("check", w.Check), slog.String("remedy", w.Remedy))
		passed.Warnings = append(passed.Warnings, w.String())
	}
	b, err := json.MarshalIndent(passed, "", " ")
	if err != nil {
		return fmt.Errorf("cannot record the outcome of preflight: %w", err)
	}
	return m.Host.WriteFile(file, append(b, '\n'), 0o644)
}
