package converge

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// script is a list of steps for the runner's tests, and what it did.
type script struct {
	head, rest []Step
	mu         sync.Mutex
	calls      []string // "do NAME", in order
	lines      []string // what was logged
	status     []string // what systemd was told
}

func (s *script) list(role string) []Step {
	if role == "" {
		return s.head
	}
	return append(slices.Clone(s.head), s.rest...)
}

// step is a step that holds once Do was called.
func (s *script) step(name string) Step {
	done := false
	return Step{
		Name: name,
		Done: func(context.Context, *node.Machine) (bool, error) { return done, nil },
		Do: func(context.Context, *node.Machine) error {
			done = true
			s.calls = append(s.calls, "do "+name)
			return nil
		},
	}
}

func (s *script) run(t *testing.T, ctx context.Context, o Options) (Status, error) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h := &host.Host{Root: root, Now: time.Now, Log: slog.New(logLines{s})}
	m := &node.Machine{Host: h, Node: &config.Node{Role: config.RoleInit}}
	report := &Report{Host: h, Notify: func(v string) { s.status = append(s.status, v) }}
	err = Run(ctx, m, s.list, o, report)
	st, readErr := ReadStatus(h)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return st, err
}

type logLines struct{ s *script }

func (l logLines) Enabled(context.Context, slog.Level) bool { return true }

func (l logLines) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l logLines) WithGroup(string) slog.Handler { return l }

func (l logLines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "KBUILD_STEP" || a.Key == "KBUILD_RESULT" {
			line += " " + a.Key + "=" + a.Value.String()
		}
		return true
	})
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.lines = append(l.s.lines, line)
	return nil
}

func states(s Status) map[string]StepState {
	m := map[string]StepState{}
	for _, st := range s.Steps {
		m[st.Name] = st.State
	}
	return m
}

func TestConvergeSkipsWhatHolds(t *testing.T) {
	s := &script{}
	held := s.step("held")
	held.Done = func(context.Context, *node.Machine) (bool, error) { return true, nil }
	s.head, s.rest = []Step{held}, []Step{s.step("a"), s.step("b")}
	st, err := s.run(t, t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"do a", "do b"}; !slices.Equal(s.calls, want) {
		t.Errorf("did %q, want %q", s.calls, want)
	}
	if got := states(st); st.State != StateDone || got["held"] != StepUnchanged || got["a"] != StepDone {
		t.Errorf("status %+v", st)
	}
	last := s.lines[len(s.lines)-1]
	if !strings.HasPrefix(last, "b: done in") || !strings.HasSuffix(last, "KBUILD_STEP=b KBUILD_RESULT=done") {
		t.Errorf("last line %q", last)
	}
	if want := "STATUS=all steps hold"; s.status[len(s.status)-1] != want {
		t.Errorf("systemd was told %q last, want %q", s.status[len(s.status)-1], want)
	}
}

func TestConvergeVerifies(t *testing.T) {
	s := &script{}
	liar := s.step("liar")
	liar.Done = func(context.Context, *node.Machine) (bool, error) { return false, nil }
	s.rest = []Step{liar, s.step("after")}
	st, err := s.run(t, t.Context(), Options{})
	if err == nil || !strings.Contains(err.Error(), "liar: the step ran, but its check still fails") {
		t.Fatalf("error %v", err)
	}
	if got := states(st); got["liar"] != StepFailed || got["after"] != StepPending || st.State != StateFailed {
		t.Errorf("status %+v", st)
	}
}

func TestConvergeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		tries, done := 0, false
		s.rest = []Step{{
			Name: "slow",
			Done: func(context.Context, *node.Machine) (bool, error) {
				if tries < 3 {
					tries++
					return false, outcome.Retry{After: time.Hour, Why: "the tide"}
				}
				return done, nil
			},
			Do: func(context.Context, *node.Machine) error {
				if tries < 5 {
					tries++
					return outcome.Retry{After: time.Hour, Why: "the ebb"}
				}
				done = true
				return nil
			},
		}}
		begun := time.Now()
		if _, err := s.run(t, t.Context(), Options{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 5*time.Hour {
			t.Errorf("waited %s, want 5h", took)
		}
		waits := slices.DeleteFunc(slices.Clone(s.lines), func(l string) bool { return !strings.Contains(l, "waiting") })
		want := []string{"slow: waiting: the tide KBUILD_STEP=slow KBUILD_RESULT=waiting", "slow: waiting: the ebb KBUILD_STEP=slow KBUILD_RESULT=waiting"}
		if !slices.Equal(waits, want) {
			t.Errorf("lines %q, want %q", waits, want)
		}
		if !slices.Contains(s.status, "STATUS=slow: waiting: the tide") {
			t.Errorf("systemd was not told of the wait: %q", s.status)
		}
	})
}

func TestConvergeWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		n := 0
		wake := func(ctx context.Context) {
			n++
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
		}
		s.rest = []Step{{
			Name: "watch",
			Done: func(context.Context, *node.Machine) (bool, error) {
				if n < 2 {
					return false, outcome.Retry{After: time.Hour, Why: "news", Wake: wake}
				}
				return true, nil
			},
		}}
		begun := time.Now()
		if _, err := s.run(t, t.Context(), Options{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 2*time.Minute {
			t.Errorf("waited %s, want 2m: it must go on when woken", took)
		}
	})
}

func TestConvergeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := Step{Name: "never", Limit: 10 * time.Minute, Done: func(context.Context, *node.Machine) (bool, error) {
			return false, outcome.Retry{After: 7 * time.Minute, Why: "a miracle"}
		}}
		hang := Step{Name: "never", LimitOf: func(*node.Machine) time.Duration { return 10 * time.Minute },
			Done: func(context.Context, *node.Machine) (bool, error) { return false, nil },
			Do:   func(ctx context.Context, _ *node.Machine) error { <-ctx.Done(); return ctx.Err() }}
		for want, step := range map[string]Step{
			"never: timed out after 10m0s: a miracle": wait,
			"never: timed out after 10m0s":            hang,
		} {
			s := &script{rest: []Step{step}}
			begun := time.Now()
			st, err := s.run(t, t.Context(), Options{})
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			if took := time.Since(begun); took != 10*time.Minute {
				t.Errorf("gave up after %s, want 10m", took)
			}
			if st.Steps[0].State != StepFailed || st.Error != want {
				t.Errorf("status %+v", st)
			}
		}
	})
}

// What gets on is slow, not broken: the limit begins anew. What only comes and
// goes does not get on.
func TestConvergeProgress(t *testing.T) {
	for name, c := range map[string]struct {
		far  []int64 // what is said every three minutes; the last one for ever
		want string
	}{
		"gets on":        {[]int64{1, 2, 3, 7, 8}, "slow: timed out after 22m0s, the last 10m0s of them without progress: stuck"},
		"comes and goes": {[]int64{5, 1, 5, 2, 5}, "slow: timed out after 10m0s: stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				s := &script{rest: []Step{{Name: "slow", Limit: 10 * time.Minute, Done: func(context.Context, *node.Machine) (bool, error) {
					far := c.far[min(looks, len(c.far)-1)]
					looks++
					return false, outcome.Retry{After: 3 * time.Minute, Why: "stuck", Progress: far}
				}}}}
				if _, err := s.run(t, t.Context(), Options{}); err == nil || err.Error() != c.want {
					t.Errorf("error %v, want %s", err, c.want)
				}
			})
		})
	}
}

func TestConvergeCatchesPanics(t *testing.T) {
	s := &script{}
	bad := s.step("bad")
	bad.Do = func(context.Context, *node.Machine) error { panic("this test says so") }
	s.rest = []Step{bad}
	_, err := s.run(t, t.Context(), Options{})
	if err == nil || !strings.Contains(err.Error(), "bad: panic: this test says so") {
		t.Fatalf("error %v", err)
	}
}

func TestConvergeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("SIGTERM")
		ctx, cancel := context.WithCancelCause(t.Context())
		s := &script{rest: []Step{{Name: "wait", Limit: time.Hour, Done: func(context.Context, *node.Machine) (bool, error) {
			return false, outcome.Retry{After: time.Minute, Why: "anything"}
		}}}}
		time.AfterFunc(90*time.Second, func() { cancel(cause) })
		begun := time.Now()
		st, err := s.run(t, ctx, Options{})
		if !errors.Is(err, cause) || time.Since(begun) != 90*time.Second {
			t.Errorf("error %v after %s", err, time.Since(begun))
		}
		if st.State != StateStopped || st.Steps[0].State != StepStopped {
			t.Errorf("status %+v", st)
		}
	})
}

// Steps that say what they need run beside those that they do not need; when
// one fails the others are stopped, and none is started.
func TestConvergeSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		nap := func(name string, d time.Duration, err error, needs ...string) Step {
			done := false
			return Step{Name: name, Needs: needs,
				Done: func(context.Context, *node.Machine) (bool, error) { return done, nil },
				Do: func(ctx context.Context, _ *node.Machine) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(d):
						done = true
						return err
					}
				}}
		}
		s.rest = []Step{nap("a", time.Second, nil), nap("b", 5*time.Second, nil, "a"), nap("c", 4*time.Second, nil, "a"), nap("d", time.Second, nil)}
		begun := time.Now()
		if _, err := s.run(t, t.Context(), Options{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 7*time.Second { // a, then b beside c, then d
			t.Errorf("took %s, want 7s", took)
		}

		s.rest = []Step{nap("a", time.Second, nil), nap("b", 50*time.Second, nil, "a"), nap("c", time.Second, errors.New("broken"), "a"), nap("d", time.Second, nil)}
		begun = time.Now()
		st, err := s.run(t, t.Context(), Options{})
		if err == nil || err.Error() != "c: broken" || time.Since(begun) != 2*time.Second {
			t.Errorf("error %v after %s", err, time.Since(begun))
		}
		if got := states(st); got["b"] != StepStopped || got["c"] != StepFailed || got["d"] != StepPending {
			t.Errorf("steps %v", got)
		}
	})
}

func TestConvergeOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want []string
	}{
		"until":            {Options{Until: "b"}, []string{"do who", "do a", "do b"}},
		"until in head":    {Options{Until: "who"}, []string{"do who"}},
		"skip":             {Options{Skip: []string{"a"}}, []string{"do who", "do b", "do c"}},
		"only":             {Options{Only: "b"}, []string{"do who", "do b"}},
		"only one of head": {Options{Only: "who"}, []string{"do who"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			s.head = []Step{s.step("who")}
			s.rest = []Step{s.step("a"), s.step("b"), s.step("c")}
			if _, err := s.run(t, t.Context(), c.o); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.calls, c.want) {
				t.Errorf("did %q, want %q", s.calls, c.want)
			}
		})
	}
	s := &script{}
	s.rest = []Step{s.step("a")}
	_, err := s.run(t, t.Context(), Options{Skip: []string{"aa"}})
	if _, ok := errors.AsType[UnknownStep](err); !ok || len(s.calls) > 0 {
		t.Errorf("error %v, calls %q", err, s.calls)
	}
}

// A phase that is left out takes its parts with it, and a part leaves the rest.
func TestSkipsParts(t *testing.T) {
	for _, c := range []struct {
		skip, step string
		want       bool
	}{{"certs", "certs/ca", true}, {"certs", "certs", true}, {"certs/ca", "certs", false}, {"cert", "certs/ca", false}} {
		if got := (Options{Skip: []string{c.skip}}).skips(c.step); got != c.want {
			t.Errorf("with %s left out, %s is: %v", c.skip, c.step, got)
		}
	}
}

// TestConvergeLoads: what a step finds out of the node is known to the steps
// after it; without, nothing goes on.
func TestConvergeLoads(t *testing.T) {
	who := Step{
		Name: "who", Loads: true,
		Done: func(_ context.Context, m *node.Machine) (bool, error) { return m.Host.Exists(node.ConfigFile), nil },
		Do: func(_ context.Context, m *node.Machine) error {
			n := &config.Node{Role: config.RoleWorker}
			n.Init.NodeRegistration.Name = "w1"
			return m.Freeze(n)
		},
	}
	s := &script{head: []Step{who}}
	name := ""
	told := s.step("told")
	told.Do = func(_ context.Context, m *node.Machine) error {
		name = m.Node.Init.NodeRegistration.Name
		m.Node = nil // a step's machine is its own
		return s.rest[1].Do(t.Context(), m)
	}
	s.rest = []Step{told, s.step("mark")}
	told.Done = s.rest[1].Done
	s.rest[0] = told
	if _, err := s.run(t, t.Context(), Options{}); err != nil || name != "w1" {
		t.Errorf("the step after is on %q, %v", name, err)
	}
	s = &script{head: []Step{who}, rest: []Step{s.step("after")}}
	_, err := s.run(t, t.Context(), Options{Skip: []string{"who"}})
	if err == nil || !strings.Contains(err.Error(), "the step who was left out") || len(s.calls) > 0 {
		t.Errorf("left out: %v, %q", err, s.calls)
	}
}

// TestConvergeFindsCluster: a node that joins cannot leave out the step that
// finds its cluster, nor do a later one alone before it has.
func TestConvergeFindsCluster(t *testing.T) {
	n := &config.Node{Role: config.RoleWorker}
	steps := []Step{{Name: "images"}, {Name: "discovery", Loads: true}, {Name: "start"}}
	for want, o := range map[string][]Options{
		"": {{}, {Only: "images"}, {Only: "discovery"}, {Until: "start"}},
		"run `kbuild-firstboot phase discovery` first": {{Only: "start"}, {Skip: []string{"discovery"}}, {Only: "images", Skip: []string{"discovery"}}},
	} {
		for _, o := range o {
			if err := o.learns(n, steps); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%+v: %v, want %q", o, err, want)
			}
		}
	}
}
