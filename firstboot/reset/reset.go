// Package reset makes a node a new machine: it leaves its cluster, loses all that
// it wrote, and boots again.
//
// What always holds: what would harm the cluster is refused before anything is
// done; once begun a reset goes on to its end, at the next boot if it is cut; and
// what needs the cluster comes first, what cannot be undone last.
package reset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// patience is how long a forced reset tries to tell the cluster.
const patience = 20 * time.Second

// Options are what a person decides about a reset.
type Options struct {
	// Force goes on where the cluster would lose its last control plane or its
	// quorum, or cannot be told.
	Force bool `json:"force,omitempty"`
	// KeepSlots leaves the image in the other slot, for the new machine to go back
	// to.
	KeepSlots bool `json:"keepSlots,omitempty"`
}

// progress is a reset, as far as it has come.
type progress struct {
	Options
	Begun time.Time `json:"begun"`
	// Left says that there is nothing more to tell the cluster: it was told, or
	// it ends with this machine.
	Left bool `json:"left,omitempty"`
	// Failed is when a step of a forced reset first failed to tell the cluster,
	// and Told are those that did.
	Failed map[string]time.Time `json:"failed,omitempty"`
	Told   []string             `json:"told,omitempty"`
	// Asked says that the firmware was asked for the factory reset.
	Asked bool `json:"asked,omitempty"`
}

// Run makes this machine a new one (kubeadm reset): it leaves the cluster,
// what it runs ends, what it wrote is removed and the var partition wiped, and
// it boots again, to be made a node anew from its user-data. What would harm the
// cluster is refused before anything is done. Once begun a reset goes on to its
// end, at the next boot if it is cut.
func Run(ctx context.Context, m *node.Machine, o Options, report *converge.Report) error {
	if err := load(m, o); err != nil {
		return err
	}
	return converge.Steps(ctx, m, list(o), report)
}

// load loads what the node knows of itself, and lets a reset that has begun
// be forced later. A node that does not know itself can still be forced.
func load(m *node.Machine, o Options) error {
	if p, err := readProgress(m); err == nil && node.Resetting(m.Host) && o.Force && !p.Force {
		p.Force = true
		if err := writeProgress(m, p); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	n, _, err := node.Load(m.Host)
	m.Node = n
	if err != nil && (o.Force || node.Resetting(m.Host)) {
		m.Host.Log.Warn("this node does not know what it was; the cluster is not told that it leaves", slog.Any("error", err))
		m.Node, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("%w; or reset it with --force: then the cluster is not told", err)
	}
	return nil
}

func readProgress(m *node.Machine) (progress, error) {
	return host.ReadJSON[progress](m.Host, node.ResetFile)
}

func writeProgress(m *node.Machine, p progress) error { return m.Host.WriteJSON(node.ResetFile, p) }

// list is what a reset goes through. What needs the cluster comes while the
// control plane of this machine still runs, what can not be undone comes last.
// The kubelet goes first: it would make its Node anew.
func list(o Options) []converge.Step {
	return []converge.Step{
		stepPreflight(o),
		stepStopKubelet(),
		stepLeaveClusterStatus(),
		stepLeaveNode(),
		stepLeaveEtcd(),
		stepCleanupNode(),
		stepFactoryReset(),
	}
}

// leaving is a step that tells the cluster something. There is none to tell
// where the node has left, or was never part of one; and a forced reset does
// without after a while.
func leaving(s converge.Step) converge.Step {
	done, do := s.Done, s.Do
	s.Done = func(ctx context.Context, m *node.Machine) (bool, error) {
		p, err := readProgress(m)
		if err != nil {
			return false, err
		}
		since, failed := p.Failed[s.Name]
		if p.Left || m.Node == nil || failed && m.Host.Now().Sub(since) > patience || slices.Contains(p.Told, s.Name) {
			return true, nil
		}
		ok, err := done(ctx, m)
		if p.Force && err != nil && !errors.Is(err, context.Canceled) {
			return false, nil // Do tries, and notes since when it fails
		}
		return ok, waiting(err)
	}
	s.Do = func(ctx context.Context, m *node.Machine) error {
		p, err := readProgress(m)
		if err != nil {
			return err
		}
		err = do(ctx, m)
		switch {
		case !p.Force || errors.Is(err, context.Canceled):
			return waiting(err)
		case err == nil:
			p.Told = append(p.Told, s.Name)
			return writeProgress(m, p)
		}
		if _, failed := p.Failed[s.Name]; !failed {
			if p.Failed == nil {
				p.Failed = map[string]time.Time{}
			}
			p.Failed[s.Name] = m.Host.Now()
			if err := writeProgress(m, p); err != nil {
				return err
			}
		}
		return outcome.Retry{After: time.Second, Why: err.Error() + "; this is given up soon, because the reset is forced"}
	}
	return s
}

// waiting is what a reset that is not forced does about an error: it waits where
// that may help, and says what else does.
func waiting(err error) error {
	wait, waits := errors.AsType[outcome.Retry](err)
	switch {
	case waits:
	case cluster.Temporary(err):
		wait = outcome.Retry{After: 3 * time.Second, Why: err.Error()}
	default:
		return err
	}
	wait.Why += "; `kbuild-firstboot reset --force` goes on without"
	return wait
}
