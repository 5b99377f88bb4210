package firstboot

import (
	"context"
	"time"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// stepClock keeps the system clock from lying before the image's build: on a
// machine whose battery is empty certificates would begin in the past, and
// nothing that was issued at build time would be valid yet. Time
// synchronisation corrects the rest when there is a network.
func stepClock() converge.Step {
	return converge.Step{
		Name: "clock",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			return !m.Host.Now().Before(m.Baked.BuildTime), nil
		},
		Do: func(_ context.Context, m *node.Machine) error {
			// Some seconds more, so that "not before" holds for what is made next.
			t := m.Baked.BuildTime.Add(time.Second)
			return m.Host.Do("set clock", func() error { return m.Host.SetClock(t) })
		},
	}
}
