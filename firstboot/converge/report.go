package converge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
)

// TransitionID is the journal's MESSAGE_ID of every line that says a step
// began, waited or ended. Such lines also hold KBUILD_STEP and KBUILD_RESULT
// (a StepState).
const TransitionID = "2f9a6e0d5b7c4d0c8d3c7b1f64a09e51"

// Report tells the world how a pass through the list goes: the log (journal
// and console), systemd (STATUS=) and /run/kbuild/status.json. A nil Report
// says nothing.
type Report struct {
	Host *host.Host
	// Notify sends a state to the service manager, such as "STATUS=…"; nil
	// sends nothing.
	Notify func(state string)

	mu sync.Mutex
	s  Status
}

func (p *Report) begin(steps []Step) {
	p.update(func(s *Status) {
		if s.Started.IsZero() {
			s.Started = p.Host.Now()
		}
		s.State = StateRunning
		for _, st := range steps {
			if s.find(st.Name) == nil {
				s.Steps = append(s.Steps, StepStatus{Name: st.Name, State: StepPending})
			}
		}
	})
}

func (p *Report) sources(v map[string]string) { p.update(func(s *Status) { s.Sources = v }) }

func (p *Report) running(step string) { p.step(step, StepChecking, "") }

func (p *Report) skipped(step string) { p.step(step, StepSkipped, "") }

func (p *Report) changing(step string) { p.step(step, StepWorking, "") }

func (p *Report) waiting(step, why string) { p.step(step, StepWaiting, why) }

func (p *Report) stopped(step string) { p.step(step, StepStopped, "") }

func (p *Report) failed(step string, err error) { p.step(step, StepFailed, err.Error()) }

func (p *Report) done(step string, changed bool) {
	if changed {
		p.step(step, StepDone, "")
	} else {
		p.step(step, StepUnchanged, "")
	}
}

// step records a transition; one that says nothing new is not told again.
func (p *Report) step(name string, state StepState, why string) {
	if p == nil || p.stands(name, state, why) {
		return
	}
	var line string
	p.update(func(s *Status) {
		st := s.find(name)
		if st == nil {
			s.Steps = append(s.Steps, StepStatus{Name: name})
			st = &s.Steps[len(s.Steps)-1]
		}
		now := p.Host.Now()
		if st.Since.IsZero() {
			st.Since = now
		}
		tell := st.told != string(state)+why
		if state == StepWorking && st.worked {
			tell = false // it waited and tries again: the same piece of work
		}
		st.worked = st.worked || state == StepWorking
		st.State, st.Why = state, why
		st.Seconds = now.Sub(st.Since).Seconds()
		if tell && state != StepChecking {
			st.told = string(state) + why
			line = st.line()
		}
	})
	if line == "" {
		return
	}
	level := slog.LevelInfo
	if state == StepFailed {
		level = slog.LevelError
	}
	p.Host.Log.Log(context.Background(), level, line,
		slog.String("MESSAGE_ID", TransitionID), slog.String("KBUILD_STEP", name), slog.String("KBUILD_RESULT", string(state)))
}

// stands says whether that is known already: a step that waits says so often.
func (p *Report) stands(name string, state StepState, why string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.s.find(name)
	return st != nil && st.State == state && st.Why == why
}

// end says how the pass came out.
func (p *Report) end(err error, stopped bool) {
	p.update(func(s *Status) {
		s.Ended = p.Host.Now()
		s.Error = ""
		switch {
		case err == nil:
			s.State = StateDone
		case stopped:
			s.State, s.Error = StateStopped, err.Error()
		default:
			s.State, s.Error = StateFailed, err.Error()
		}
	})
}

// update changes the status, then writes it down and tells systemd. Neither
// may stop the work, so what goes wrong there is only logged.
func (p *Report) update(change func(*Status)) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.s)
	s := &p.s
	s.Step, s.Why, s.Since = "", "", time.Time{}
	if i := slices.IndexFunc(s.Steps, func(st StepStatus) bool { return st.State.active() }); i >= 0 {
		s.Step, s.Why, s.Since = s.Steps[i].Name, s.Steps[i].Why, s.Steps[i].Since
	}
	if p.Notify != nil {
		p.Notify("STATUS=" + s.Summary())
	}
	if err := s.write(p.Host); err != nil {
		p.Host.Log.Warn("cannot write the status file", slog.Any("error", err))
	}
}

// line is the transition in words.
func (st *StepStatus) line() string {
	took := time.Duration(st.Seconds * float64(time.Second)).Round(time.Millisecond)
	switch st.State {
	case StepDone:
		return fmt.Sprintf("%s: done in %s", st.Name, took)
	case StepUnchanged:
		return st.Name + ": already so"
	case StepSkipped:
		return st.Name + ": skipped, as asked"
	case StepWaiting:
		return fmt.Sprintf("%s: waiting: %s", st.Name, st.Why)
	case StepFailed:
		return fmt.Sprintf("cannot finish %s: %s", st.Name, st.Why)
	default:
		return fmt.Sprintf("%s: %s", st.Name, st.State)
	}
}
