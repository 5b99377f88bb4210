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
		Done: func(_ context.Context, r *node.Machine) (bool, error) {
			return !r.Host.Now().Before(r.Baked.BuildTime), nil
		},
		Do: func(_ context.Context, r *node.Machine) error {
			// Some seconds more, so that "not before" holds for what is made next.
			t := r.Baked.BuildTime.Add(time.Second)
			return r.Host.Do("set clock", func() error { return r.Host.SetClock(t) })
		},
	}
}
