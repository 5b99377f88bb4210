// Package progress says what a build is doing, in lines for people: a line for
// work that is quick, and for work that is long also a line when it begins and
// one every half minute, so that nothing is silent for long. What commands
// print goes to a transcript, which their errors name.
package progress

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Log takes lines for people, in fmt's form and without a newline.
type Log func(format string, args ...any)

// To is a Log that writes lines to w.
func To(w io.Writer) Log {
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
}

// How long work takes before it is announced, and the time between two lines on
// how far it is.
const (
	announceAfter = 5 * time.Second
	reportEvery   = 30 * time.Second
)

// Task follows one piece of work: it is announced when it takes longer than a
// few seconds, says how far it is every half minute, and End says how long it
// took. So quick work is one line, and long work is never silent.
func (log Log) Task(what string) *Task {
	t := &Task{log: log, what: what, begun: time.Now(), ended: make(chan struct{}), silent: make(chan struct{})}
	go t.tell(announceAfter, reportEvery)
	return t
}

// Task is work that a Log follows. Its methods may be called at any time
// from any goroutine.
type Task struct {
	log           Log
	what          string
	begun         time.Time
	far           atomic.Pointer[string]
	ended, silent chan struct{}
}

// Far says how far the work is, in a few words: "412 packages".
func (t *Task) Far(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	t.far.Store(&s)
}

// End ends the task and says how long it took. After an error it says nothing:
// the error does.
func (t *Task) End(err error) {
	close(t.ended)
	<-t.silent
	if err == nil {
		t.log("%s: %d s", t.what, t.seconds())
	}
}

func (t *Task) seconds() int { return int(time.Since(t.begun).Seconds() + 0.5) }

func (t *Task) tell(after, every time.Duration) {
	defer close(t.silent)
	next := time.NewTimer(after)
	defer next.Stop()
	for announced := false; ; announced = true {
		select {
		case <-t.ended:
			return
		case <-next.C:
			next.Reset(every)
		}
		switch far := t.far.Load(); {
		case !announced:
			t.log("%s …", t.what)
		case far != nil:
			t.log("%s: %s, %d s", t.what, *far, t.seconds())
		default:
			t.log("%s: still at it, %d s", t.what, t.seconds())
		}
	}
}
