package firstboot

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/kbuild/kbuild/firstboot/cluster"
)

// Final is an error that trying again does not mend: the machine needs another
// configuration, or somebody has to look.
type Final struct{ Err error }

func (f Final) Error() string { return f.Err.Error() }
func (f Final) Unwrap() error { return f.Err }

// joinRetry is how long a node that cannot join yet sleeps between two looks:
// a bit more or less each time, so that a hundred nodes that were powered on
// together do not ask together.
func joinRetry() time.Duration { return time.Second + rand.N(time.Second/2) }

// refused turns what the cluster or its absence said into what the runner does
// about it: wait, where waiting may mend it, or give up.
func refused(err error) error {
	r, ok := errors.AsType[cluster.Refusal](err)
	switch {
	case !ok:
		return soon(err)
	case r.Mends:
		return Retry{After: joinRetry(), Why: r.Error()}
	}
	return Final{r}
}
