package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Transient is a command that systemd runs as a service of its own, outside
// whoever asks for it: it goes on when that ends.
type Transient struct {
	Unit        string // "kbuild-stage-1.service"
	Description string
	Args        []string // the program's absolute path first
	Output      string   // file of the machine to which all that it prints is appended
}

// Outcome is how a transient service ended.
type Outcome struct {
	State string // ActiveState
	Code  int    // exit code of its command, or 128 and the signal's number
	// GoingDown says that the machine is about to stop, and the service with it.
	GoingDown bool
}

// Running says whether the service has not ended yet.
func (o Outcome) Running() bool { return o.State == "activating" || o.State == "deactivating" }

const (
	// outcomePoll is the time between two looks at a transient service and at
	// what it has printed.
	outcomePoll = 500 * time.Millisecond
	// busPatience is how long systemd may not be reached meanwhile: the bus is
	// restarted, systemd executes itself anew.
	busPatience = 30 * time.Second
)

// Follow runs t, or takes up the one of this name that was begun before, copies
// what it prints to out, and returns how it ended. When ctx ends t goes on.
func (h *Host) Follow(ctx context.Context, t Transient, out io.Writer) (Outcome, error) {
	if err := h.MkdirAll(path.Dir(t.Output), 0o755); err != nil {
		return Outcome{}, err
	}
	if err := h.Do("start "+t.Unit, func() error { return h.Systemd.StartTransient(ctx, t) }); err != nil {
		return Outcome{}, err
	}
	var printed int64
	var lost time.Time
	for {
		o, err := h.Systemd.Outcome(ctx, t.Unit)
		printed += h.copyFrom(t.Output, printed, out)
		switch {
		case ctx.Err() != nil:
			return Outcome{}, context.Cause(ctx)
		case err == nil && !o.Running():
			return o, nil
		case err == nil:
			lost = time.Time{}
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > busPatience:
			return Outcome{}, err
		}
		select {
		case <-ctx.Done():
			return Outcome{}, context.Cause(ctx)
		case <-time.After(outcomePoll):
		}
	}
}

// copyFrom copies what a file holds beyond offset. It may not be there yet.
func (h *Host) copyFrom(name string, offset int64, out io.Writer) int64 {
	f, err := h.Root.Open(rel(name))
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := io.Copy(out, io.NewSectionReader(f, offset, 1<<30)) // the rest comes with the next look
	return n
}

// execStart is a command in ExecStartEx (org.freedesktop.systemd1(5)). A $ in it
// is a $.
type execStart struct {
	Path  string
	Args  []string
	Flags []string
}

// startTransient begins a oneshot service. systemd keeps it until it is asked
// to forget it, so that its outcome can be read at any time.
func (b *bus) startTransient(ctx context.Context, t Transient) error {
	conn, err := b.get(ctx)
	if err != nil {
		return err
	}
	property := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	_, err = conn.StartTransientUnitContext(ctx, t.Unit, "fail", []dbus.Property{
		dbus.PropDescription(t.Description),
		dbus.PropType("oneshot"),
		dbus.PropRemainAfterExit(true),
		property("ExecStartEx", []execStart{{t.Args[0], t.Args, []string{"no-env-expand"}}}),
		property("StandardOutputFileToAppend", t.Output),
		property("StandardErrorFileToAppend", t.Output),
	}, nil)
	var exists godbus.Error
	if errors.As(err, &exists) && exists.Name == "org.freedesktop.systemd1.UnitExists" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", t.Unit, err)
	}
	return nil
}

// Codes of a process's end (sigaction(2), si_code of SIGCHLD).
const (
	cldKilled = 2
	cldDumped = 3
)

func (b *bus) outcome(ctx context.Context, unit string) (Outcome, error) {
	var o Outcome
	conn, err := b.get(ctx)
	if err != nil {
		return o, err
	}
	// Before its job has begun it is not active yet; when there is none any
	// more, its state is the end.
	job, err := conn.GetUnitPropertyContext(ctx, unit, "Job")
	if err != nil {
		return o, fmt.Errorf("cannot read the job of %s: %w", unit, err)
	}
	if o.State, err = b.property(ctx, unit, "ActiveState"); err != nil {
		return o, err
	}
	if j, ok := job.Value.Value().([]any); ok && len(j) > 0 && j[0] != uint32(0) {
		o.State = "activating"
	}
	state, err := conn.SystemStateContext(ctx)
	if err != nil {
		return o, fmt.Errorf("cannot ask systemd for its state: %w", err)
	}
	o.GoingDown = state.Value.Value() == "stopping"
	how, err := conn.GetServicePropertyContext(ctx, unit, "ExecMainCode")
	if err != nil {
		return o, fmt.Errorf("cannot read how %s ended: %w", unit, err)
	}
	status, err := conn.GetServicePropertyContext(ctx, unit, "ExecMainStatus")
	if err != nil {
		return o, fmt.Errorf("cannot read how %s ended: %w", unit, err)
	}
	code, _ := status.Value.Value().(int32)
	o.Code = int(code)
	if c, _ := how.Value.Value().(int32); c == cldKilled || c == cldDumped {
		o.Code += 128
	}
	return o, nil
}

// forget ends a transient service, if it runs, and has systemd forget it.
func (b *bus) forget(ctx context.Context, unit string) error {
	state, err := b.property(ctx, unit, "ActiveState")
	if err != nil {
		return err
	}
	if state != "inactive" && state != "failed" {
		err = b.job(ctx, "stop", unit, (*dbus.Conn).StopUnitContext)
	}
	conn, err2 := b.get(ctx)
	if err2 == nil {
		conn.ResetFailedUnitContext(ctx, unit) // one that has not failed is not there any more
	}
	return errors.Join(err, err2)
}
