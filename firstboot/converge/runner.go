package converge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// Run goes through the steps: what holds is skipped, what does not is
// made so, and must hold afterwards. The steps of list("") come first, because
// one of them finds out the node's role; then the rest of list(role) follows.
// It returns the first error that a step ends with; a step that may not start
// because of it is left alone. When ctx ends, the steps are stopped and the
// error wraps ctx's cause.
func Run(ctx context.Context, m *node.Machine, list func(role string) []Step, o Options, report *Report) error {
	if err := o.check(list); err != nil {
		return err
	}
	head := list("")
	report.begin(head)
	err := walk(ctx, m, head, Options{Until: o.Until, Skip: o.Skip}, report)
	if err == nil && !o.within(head) {
		err = runRole(ctx, m, list, len(head), o, report)
	}
	report.end(err, ctx.Err() != nil)
	return err
}

// Steps is Run for steps that are the same whatever the node's role.
func Steps(ctx context.Context, m *node.Machine, steps []Step, report *Report) error {
	report.begin(steps)
	err := walk(ctx, m, steps, Options{}, report)
	report.end(err, ctx.Err() != nil)
	return err
}

// Retry calls do after a while, and again as long as it asks for that.
func Retry(ctx context.Context, after time.Duration, do func() error) error {
	for wait := (outcome.Retry{After: after}); ; {
		if pause(ctx, wait) != nil {
			return context.Cause(ctx)
		}
		err := do()
		again, ok := errors.AsType[outcome.Retry](err)
		if !ok {
			return err
		}
		wait = again
	}
}

// runRole is Run for a node that knows its role.
func runRole(ctx context.Context, m *node.Machine, list func(role string) []Step, head int, o Options, report *Report) error {
	role := string(m.Node.Role)
	if !slices.Contains(Roles(), role) {
		return fmt.Errorf("cannot make this machine a node of role %q: this version of kbuild knows %q", role, Roles()[1:])
	}
	all := list(role)
	if err := o.learns(m.Node, all[head:]); err != nil {
		return err
	}
	o.Skip = append(slices.Clone(o.Skip), m.Node.SkippedSteps()...)
	report.sources(m.Node.Sources)
	report.begin(all)
	return walk(ctx, m, all[head:], o, report)
}

// StepError is the error that a step ended with. The report has told it already.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// walk runs steps, each as soon as what it needs holds. A step works on the
// machine as it was known when the step began.
func walk(ctx context.Context, m *node.Machine, steps []Step, o Options, report *Report) error {
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Name == o.Until }); i >= 0 {
		steps = steps[:i+1]
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	steps = slices.Clone(steps)
	for i, s := range steps {
		if s.NeedsOf != nil {
			steps[i].Needs = slices.Concat(s.Needs, s.NeedsOf(m))
		}
	}
	type end struct {
		at  int
		err error
	}
	ended := make(chan end)
	holds := map[string]bool{} // steps that are over, well
	started := make([]bool, len(steps))
	running := 0
	var first error
	for {
		for i, s := range steps {
			if first != nil || started[i] || ctx.Err() != nil || !ready(steps[:i], s, holds) {
				continue
			}
			started[i] = true
			if o.skips(s.Name) || o.Only != "" && o.Only != s.Name {
				report.skipped(s.Name)
				holds[s.Name] = true
				if first = load(m, s, true); first != nil {
					cancel(first)
				}
				continue
			}
			running++
			known := *m
			go func() {
				err := one(ctx, &known, s, report)
				if err != nil {
					err = &StepError{s.Name, err}
				}
				ended <- end{i, err}
			}()
		}
		if running == 0 {
			break
		}
		e := <-ended
		running--
		if e.err == nil {
			holds[steps[e.at].Name] = true
			e.err = load(m, steps[e.at], false)
		}
		if e.err != nil && first == nil {
			first = e.err
			cancel(e.err)
		}
	}
	if first == nil && ctx.Err() != nil {
		first = fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	return first
}

// load makes known to r what s has found out of the node, if it is a step that
// does.
func load(m *node.Machine, s Step, skipped bool) error {
	if !s.Loads {
		return nil
	}
	n, is, err := node.Load(m.Host)
	switch {
	case err != nil:
		return err
	case !is && skipped:
		return fmt.Errorf("cannot go on: the node has no configuration, because the step %s was left out", s.Name)
	case !is:
		return fmt.Errorf("step %s holds, and the node has no configuration; this is a bug in kbuild, please report it", s.Name)
	}
	m.Node = n
	return nil
}

// ready says whether s may start: what it needs, of the steps before it, holds.
func ready(before []Step, s Step, holds map[string]bool) bool {
	for _, b := range before {
		if (s.Needs == nil || slices.Contains(s.Needs, b.Name)) && !holds[b.Name] {
			return false
		}
	}
	return true
}

// one takes a single step to its end.
func one(ctx context.Context, m *node.Machine, s Step, report *Report) (err error) {
	outer := ctx
	limit := s.Limit
	if s.LimitOf != nil {
		limit = s.LimitOf(m)
	}
	begun := time.Now()
	extend := func() {}
	if limit > 0 {
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		end := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
		defer end.Stop()
		extend = func() { end.Reset(limit) }
		ctx = inner
	}
	report.running(s.Name)
	why := ""        // what it last waited for
	did := false     // Do came to its end since Done was last false
	changed := false // Do was called at all
	var far int64    // the furthest that what it waited for has come
	defer func() {
		switch {
		case err == nil:
		case outer.Err() != nil:
			report.stopped(s.Name)
		default:
			report.failed(s.Name, err)
		}
	}()
	for {
		done, err := callDone(ctx, m, s)
		if err == nil && done {
			report.done(s.Name, changed)
			return nil
		}
		if err == nil && did {
			return errors.New("the step ran, but its check still fails")
		}
		if err == nil {
			changed = true
			report.changing(s.Name)
			if err = callDo(ctx, m, s); err == nil {
				did = true
				continue
			}
		}
		if wait, ok := errors.AsType[outcome.Retry](err); ok {
			why = wait.Why
			if wait.Progress > far {
				far = wait.Progress
				extend()
			}
			report.waiting(s.Name, why)
			if pause(ctx, wait) == nil {
				did = false
				continue
			}
			err = ctx.Err()
		}
		switch {
		case outer.Err() != nil:
			return fmt.Errorf("stopped: %w", context.Cause(outer))
		case ctx.Err() != nil && why != "":
			return fmt.Errorf("%s: %s", timedOut(begun, limit, far > 0), why)
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return errors.New(timedOut(begun, limit, far > 0))
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", timedOut(begun, limit, far > 0), err)
		}
		return err
	}
}

// timedOut says how long a step was given.
func timedOut(begun time.Time, limit time.Duration, gotOn bool) string {
	if all := time.Since(begun).Round(time.Second); gotOn && all > limit+time.Second {
		return fmt.Sprintf("timed out after %s, the last %s of them without progress", all, limit)
	}
	return fmt.Sprintf("timed out after %s", limit)
}

// pause sleeps as a step asks, and returns ctx's error when that ends first.
func pause(ctx context.Context, w outcome.Retry) error {
	nap, cancel := context.WithTimeout(ctx, max(w.After, time.Millisecond))
	defer cancel()
	if w.Wake != nil {
		begun := time.Now()
		w.Wake(nap)
		// A Wake that returns at once must not make the runner spin.
		if least := 10 * time.Millisecond; time.Since(begun) < least {
			short, stop := context.WithTimeout(nap, least)
			<-short.Done()
			stop()
		}
		return ctx.Err()
	}
	<-nap.Done()
	return ctx.Err()
}

func callDone(ctx context.Context, m *node.Machine, s Step) (done bool, err error) {
	defer caught(m, s.Name, &err)
	return s.Done(ctx, m)
}

func callDo(ctx context.Context, m *node.Machine, s Step) (err error) {
	defer caught(m, s.Name, &err)
	return s.Do(ctx, m)
}

// caught turns a panic into an error; where it happened goes to the log.
func caught(m *node.Machine, step string, err *error) {
	v := recover()
	if v == nil {
		return
	}
	m.Host.Log.Error("a step panicked", slog.String("step", step), slog.String("stack", string(debug.Stack())))
	*err = fmt.Errorf("panic: %v; this is a bug in kbuild, please report it with the journal of this unit", v)
}
