package reset

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/slot"
)

// stepFactoryReset has the var partition wiped and boots: the end of the reset,
// and of this machine's old life. It holds never, for with the boot it is over.
//
// systemd-repart wipes var in the initrd when an EFI variable asks for it. Where
// there are no variables, or they are not heeded (var is still there after the
// boot), what lies on var is removed by hand instead; other files than a node's
// stay then.
func stepFactoryReset() converge.Step {
	return converge.Step{
		Name: "factory-reset",
		Done: func(context.Context, *node.Machine) (bool, error) { return false, nil },
		Do: func(ctx context.Context, m *node.Machine) error {
			if err := wipeState(ctx, m); err != nil {
				return err
			}
			return reboot(ctx, m)
		},
	}
}

func wipeState(ctx context.Context, m *node.Machine) error {
	p, err := readProgress(m)
	if err != nil || !node.Resetting(m.Host) {
		return err
	}
	// The new machine knows nothing of what the other slot's image did to it, and
	// must not begin as the trial of another.
	empty := slot.DropOther
	if p.KeepSlots {
		empty = slot.Cancel
	}
	err = empty(ctx, m.Host)
	if _, none := errors.AsType[outcome.Refused](err); err != nil && !none {
		m.Host.Log.Warn("the image in the other slot stays", slog.Any("error", err))
	}
	if !p.Asked {
		if err := m.Host.BeforeChange("ask for the factory reset"); err != nil {
			return err
		}
		err := m.Host.FactoryReset()
		if err == nil {
			p.Asked = true
			return writeProgress(m, p)
		}
		if !errors.Is(err, host.ErrNoVariables) {
			m.Host.Log.Warn("cannot have the var partition wiped; the node's files on it are removed instead", slog.Any("error", err))
		}
	}
	// Images are given to containerd anew at the next boot.
	if err := m.Host.Do("stop containerd.service", func() error { return m.Host.Systemd.Stop(ctx, "containerd.service") }); err != nil {
		return err
	}
	if err := m.Host.RemoveAll("/var/lib/containerd"); err != nil {
		m.Host.Log.Warn("the container runtime's files stay", slog.Any("error", err))
	}
	m.Host.Log.Info("this machine is no node any more")
	return m.Host.Remove(node.ResetFile)
}

// reboot asks systemd for a reboot. It ends this process too.
func reboot(ctx context.Context, m *node.Machine) error {
	if err := m.Host.Do("reboot", func() error { return m.Host.Systemd.Start(ctx, "reboot.target") }); err != nil {
		return err
	}
	return outcome.Retry{After: time.Minute, Why: "the machine goes down and boots as a new one"}
}
