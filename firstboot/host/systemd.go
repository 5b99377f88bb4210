package host

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/dbus"
)

// bus is a connection to PID 1, made when it is first needed and again when it
// was lost (a restart of the bus, a re-execution of systemd).
type bus struct {
	mu   sync.Mutex
	conn *dbus.Conn
}

func (b *bus) systemd() Systemd {
	return Systemd{
		Start: func(ctx context.Context, unit string) error {
			return b.job(ctx, "start", unit, (*dbus.Conn).StartUnitContext)
		},
		Restart: func(ctx context.Context, unit string) error {
			return b.job(ctx, "restart", unit, (*dbus.Conn).RestartUnitContext)
		},
		Stop: func(ctx context.Context, unit string) error {
			return b.job(ctx, "stop", unit, (*dbus.Conn).StopUnitContext)
		},
		Reload: b.reload,
		Active: func(ctx context.Context, unit string) (string, error) { return b.property(ctx, unit, "ActiveState") },
		Wait:   b.wait,

		StartTransient: b.startTransient,
		Outcome:        b.outcome,
		Forget:         b.forget,
	}
}

func (b *bus) get(ctx context.Context) (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	// The connection outlives the call, so it must not end with ctx.
	conn, err := dbus.NewWithContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("cannot talk to systemd over D-Bus: %w", err)
	}
	if b.conn != nil {
		b.conn.Close()
	}
	b.conn = conn
	return conn, nil
}

// job queues a job and waits for its result.
func (b *bus) job(ctx context.Context, verb, unit string, queue func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error)) error {
	conn, err := b.get(ctx)
	if err != nil {
		return err
	}
	result := make(chan string, 1)
	if _, err := queue(conn, ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("cannot %s %s: %w", verb, unit, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("cannot %s %s: %w", verb, unit, context.Cause(ctx))
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("cannot %s %s: the job ended as %q; journalctl -u %s says why", verb, unit, r, unit)
		}
		return nil
	}
}

func (b *bus) reload(ctx context.Context) error {
	conn, err := b.get(ctx)
	if err == nil {
		err = conn.ReloadContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot reload systemd's units: %w", err)
	}
	return nil
}

func (b *bus) property(ctx context.Context, unit, name string) (string, error) {
	conn, err := b.get(ctx)
	if err != nil {
		return "", err
	}
	p, err := conn.GetUnitPropertyContext(ctx, unit, name)
	if err != nil {
		return "", fmt.Errorf("cannot read %s of %s: %w", name, unit, err)
	}
	v, ok := p.Value.Value().(string)
	if !ok {
		return "", fmt.Errorf("cannot read %s of %s: it is %s, no string", name, unit, p.Value)
	}
	return v, nil
}

// virtualization is systemd's own answer, a string in quotes on the bus.
func (b *bus) virtualization() string {
	conn, err := b.get(context.Background())
	if err != nil {
		return ""
	}
	v, err := conn.GetManagerProperty("Virtualization")
	if err != nil {
		return ""
	}
	if v = strings.Trim(v, `"`); v == "" {
		return "none"
	}
	return v
}

// wait returns when systemd says that something about the unit changed, or
// when ctx ends. It has a connection of its own, so that subscribing does not
// outlive it.
func (b *bus) wait(ctx context.Context, unit string) {
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		<-ctx.Done()
		return
	}
	defer conn.Close()
	updates, errs := make(chan *dbus.PropertiesUpdate, 64), make(chan error, 1)
	conn.SetPropertiesSubscriber(updates, errs)
	if err := conn.Subscribe(); err != nil {
		<-ctx.Done()
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-errs: // more news than we could take: look again
			return
		case u := <-updates:
			if u.UnitName == unit {
				return
			}
		}
	}
}
