package converge

import (
	"context"
	"errors"
	"time"

	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// PlanState is what a run would do with a step.
type PlanState string

const (
	PlanHolds   PlanState = "holds"   // nothing
	PlanToDo    PlanState = "to do"   // make it so
	PlanWaits   PlanState = "waits"   // wait for what Why says
	PlanUnknown PlanState = "unknown" // that cannot be told, for what Why says
	PlanSkipped PlanState = "skipped" // leave it out, as the configuration asks
)

// Planned is one step of a plan.
type Planned struct {
	Name  string    `json:"name"`
	State PlanState `json:"state"`
	Why   string    `json:"why,omitempty"`
}

// planLimit is how long one step may look. An API server that is not there
// must not hold up the answer.
const planLimit = 3 * time.Second

// Plan asks each step of list whether it holds, changes nothing and waits for
// nothing. The steps of the role follow only when the node knows its role:
// known says so.
func Plan(ctx context.Context, m *node.Machine, list func(role string) []Step) (plan []Planned, known bool) {
	head := list("")
	unknown := false // what the node is to be could not be told
	for _, s := range head {
		if unknown {
			plan = append(plan, Planned{s.Name, PlanUnknown, "the node has no configuration yet"})
			continue
		}
		p := planned(ctx, m, s)
		plan = append(plan, p)
		if s.Loads {
			unknown = p.State != PlanHolds || load(m, s, true) != nil
		}
	}
	if unknown {
		return plan, false
	}
	o := Options{Skip: m.Node.SkippedSteps()}
	for _, s := range list(string(m.Node.Role))[len(head):] {
		if o.skips(s.Name) {
			plan = append(plan, Planned{Name: s.Name, State: PlanSkipped})
			continue
		}
		plan = append(plan, planned(ctx, m, s))
	}
	return plan, true
}

func planned(ctx context.Context, m *node.Machine, s Step) Planned {
	p := Planned{Name: s.Name, State: PlanUnknown}
	ctx, cancel := context.WithTimeoutCause(ctx, planLimit, errors.New("it takes too long to tell"))
	defer cancel()
	done, err := callDone(ctx, m, s)
	wait, waits := errors.AsType[outcome.Retry](err)
	switch {
	case waits:
		p.State, p.Why = PlanWaits, wait.Why
	case ctx.Err() != nil:
		p.Why = context.Cause(ctx).Error()
	case err != nil:
		p.Why = err.Error()
	case done:
		p.State = PlanHolds
	default:
		p.State = PlanToDo
	}
	return p
}
