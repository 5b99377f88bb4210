// Package outcome is what an error says beside its text, and there are two
// things: try again, or it is refused. The runner waits for the first and ends
// with the second, and a command's exit code tells a refusal from any other
// error; nobody else decides either. An error that is neither is one whose
// repair nobody knows: it ends a step, and a later run may come out better.
//
// What always holds: a Why is for people and never holds a secret.
package outcome

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Retry is the error of what is not so yet: the same call may work later, with
// nothing changed on this machine. Only the runner sleeps.
type Retry struct {
	After time.Duration // until it is worth another try
	Why   string        // what is waited for
	// Wake, if set, returns before After has passed when it is worth looking
	// again: a watched file came, a unit changed its state. Its context ends
	// after After.
	Wake func(ctx context.Context)
	// Progress is how far what is waited for has come, in a measure of its own.
	// Whenever it is larger than ever before, the step's limit begins anew: what
	// gets on is slow, not broken.
	Progress int64
}

func (r Retry) Error() string { return r.Why }

// Refused is the error of what trying again does not help: the machine needs
// another configuration or image, or somebody has to look.
type Refused struct {
	Why    string // what is wrong
	Remedy string // what to do about it; empty where Why says it
	Cause  error  // the error behind it; nil is none
}

func (r Refused) Error() string {
	if r.Remedy == "" {
		return r.Why
	}
	return r.Why + "; " + r.Remedy
}

func (r Refused) Unwrap() error { return r.Cause }

// Refuse is a Refused whose text is that of fmt.Errorf, which says what to do,
// too. What it wraps is the cause.
func Refuse(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return Refused{Why: err.Error(), Cause: errors.Unwrap(err)}
}

// Soon is how long a node leaves its cluster alone between two tries: a bit more
// or less each time, so that a hundred nodes that were powered on together do
// not ask together.
func Soon() time.Duration { return time.Second + rand.N(time.Second/2) }
