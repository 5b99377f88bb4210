package fleet

import (
	"strings"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	const old, to = "v1.19.12", "v1.20.15"
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const boot = "boot-0"
	ours := func(n Node) Node { n.Unschedulable, n.Cordoned = true, boot; return n }
	node := func(version, boot string, ready bool) Node {
		return Node{Name: "w1", Version: version, BootID: boot, Ready: ready}
	}
	foreign := node(old, "1", true)
	foreign.Unschedulable = true
	freed := ours(node(old, "1", true))
	freed.Unschedulable = false
	rebooted := progress{staged: true, drained: true, applied: true, old: old, boot: "1"}
	waited := rebooted
	waited.back = now.Add(-grace)
	for name, x := range map[string]struct {
		node Node
		p    progress
		want Step
		why  string
	}{
		"fresh":                   {node(old, "1", true), progress{}, Stage, ""},
		"staged":                  {node(old, "1", true), progress{staged: true}, Cordon, ""},
		"cordoned":                {ours(node(old, "1", true)), progress{staged: true, guarded: true}, Drain, ""},
		"drained":                 {ours(node(old, "1", true)), progress{staged: true, guarded: true, drained: true}, Apply, ""},
		"an earlier run's cordon": {ours(node(old, "1", true)), progress{}, Stage, ""},
		"somebody else's cordon":  {foreign, progress{staged: true}, Cordon, ""},
		"and marked":              {ours(foreign), progress{staged: true, guarded: true}, Drain, ""},
		"without a guard":         {ours(node(old, "1", true)), progress{staged: true}, Cordon, ""},
		"uncordoned meanwhile":    {freed, progress{staged: true, guarded: true, drained: true}, Cordon, ""},
		"not ready":               {ours(node(old, "1", false)), progress{}, Wait, "not Ready"},
		"already there":           {node(to, "1", true), progress{}, Done, "already"},
		"there, not uncordoned":   {ours(node(to, "1", true)), progress{}, Wait, "uncordoned"},
		"there, cordoned since":   {ours(node(to, boot, true)), progress{}, Uncordon, "an earlier run"},
		"goes down":               {ours(node(old, "1", true)), rebooted, Wait, "shutting down"},
		"boots":                   {ours(node(to, "2", false)), rebooted, Wait, "booting"},
		"is up":                   {ours(node(to, "2", true)), rebooted, Wait, "uncordoned"},
		"is done":                 {node(to, "2", true), rebooted, Done, "Ready"},
		"just back":               {node(old, "2", true), rebooted, Wait, "again"},
		"fell back":               {node(old, "2", true), waited, Failed, "fallen back to " + old},
		"fell back, cordoned":     {ours(node(old, "2", true)), waited, Failed, "fallen back"},
		"another image":           {node("v1.19.16", "2", true), waited, Failed, "--source"},
	} {
		step, why := next(x.node, &x.p, to, now)
		if step != x.want || !strings.Contains(why, x.why) {
			t.Errorf("%s: %s (%s), want %s (%s)", name, step, why, x.want, x.why)
		}
	}
	// A node that tries its new slot again and again is not back.
	p := rebooted
	next(node(old, "2", true), &p, to, now)
	next(node(to, "3", false), &p, to, now.Add(grace))
	if step, _ := next(node(old, "4", true), &p, to, now.Add(2*grace)); step != Wait {
		t.Errorf("back for a moment between two tries: %s", step)
	}
}

func TestStartable(t *testing.T) {
	const old, to = "v1.19.12", "v1.20.15"
	a, b, c, dead, moved := worker("a", old), worker("b", old), worker("c", old), worker("dead", old), worker("moved", to)
	dead.Ready = false
	booting, movedDead := dead, moved
	booting.Name, booting.Cordoned = "booting", "2026-01-01T00:00:00Z"
	movedDead.Ready = false
	set := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	for _, x := range []struct {
		workers    []Node
		busy, done map[string]bool
		limit      int
		want       string
	}{
		{[]Node{a, b, c}, nil, nil, 1, "a"},
		{[]Node{a, b, c}, nil, nil, 2, "a, b"},
		{[]Node{a, b, c}, nil, set("a"), 2, "b, c"},
		{[]Node{moved, b, c}, nil, nil, 2, "b, c"},
		{[]Node{movedDead, b, c}, nil, nil, 2, "b"},
		{[]Node{a, b, c}, set("a"), nil, 2, "b"},
		{[]Node{a, b, c}, set("a", "b"), nil, 2, ""},
		{[]Node{dead, a, b}, nil, nil, 1, ""},
		{[]Node{dead, a, b}, nil, nil, 2, "a"},
		{[]Node{booting, a, b}, nil, nil, 1, "booting"},
		{nil, nil, nil, 1, ""},
	} {
		if got := names(startable(x.workers, x.busy, x.done, to, x.limit)); got != x.want {
			t.Errorf("%s busy %v, done %v, of %d: %q, want %q", names(x.workers), x.busy, x.done, x.limit, got, x.want)
		}
	}
}
