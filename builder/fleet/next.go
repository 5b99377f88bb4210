package fleet

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

// Step is what comes next for a node.
type Step string

// The steps of an upgrade, in their order, and how it may end.
const (
	Stage    Step = "stage"    // write the image into the other slot
	Cordon   Step = "cordon"   // no new pods are scheduled
	Drain    Step = "drain"    // evict its pods
	Apply    Step = "apply"    // reboot into the other slot
	Wait     Step = "wait"     // for the node
	Uncordon Step = "uncordon" // a node that an earlier run has cordoned
	Reset    Step = "reset"    // leave the cluster, and wipe the machine
	Done     Step = "done"
	Failed   Step = "failed" // it came back in another version
)

// grace is how long a node that came back in its old version may take to show
// the new one.
const grace = 30 * time.Second

// progress is what this run has done with a node, and what it saw of it.
type progress struct {
	staged, guarded, drained, applied bool
	old                               string       // its version before
	boot                              string       // the boot in which it was asked to reboot
	back                              time.Time    // since when it is Ready again in another version
	event                             string       // the last Event of a fallback before
	job                               *batchv1.Job // that asks it to reboot
	asked                             time.Time    // when it was created
}

// next says what comes next for node n on its way to version to, and why. It
// notes in p since when a node is back in another version.
func next(n Node, p *progress, to string, now time.Time) (Step, string) {
	if !p.applied {
		return nextBefore(n, p, to)
	}
	other := n.BootID != p.boot && n.Ready && n.Version != to
	if !other {
		p.back = time.Time{}
	}
	switch {
	case n.BootID == p.boot:
		return Wait, "it is shutting down"
	case !n.Ready:
		return Wait, "it is booting, and not Ready yet"
	case n.Version == to && n.Cordoned != "":
		return Wait, "it is Ready; its boot has not uncordoned it yet"
	case n.Version == to:
		return Done, "it is Ready in " + to
	case p.back.IsZero():
		p.back = now
		fallthrough
	case now.Sub(p.back) < grace:
		return Wait, "it is Ready again in " + n.Version
	case n.Version == p.old:
		return Failed, fmt.Sprintf("it has fallen back to %s: the new image did not become healthy", n.Version)
	}
	return Failed, fmt.Sprintf("it came back in %s, not in %s: check which version --source holds", n.Version, to)
}

// nextBefore is next before the reboot.
func nextBefore(n Node, p *progress, to string) (Step, string) {
	switch {
	case n.Version == to && n.Ready && n.Cordoned == "":
		return Done, "it already runs " + to
	case n.Version == to && n.Ready && n.Cordoned == n.BootID:
		return Uncordon, "it already runs " + to + ", and an earlier run has left it cordoned"
	case n.Version == to && n.Ready:
		return Wait, "it is Ready; its boot has not uncordoned it yet"
	case !n.Ready:
		return Wait, "it is not Ready"
	case !p.staged:
		return Stage, ""
	case !p.guarded || !n.Unschedulable || n.Cordoned == "": // one that someone else has cordoned is marked, too
		return Cordon, ""
	case !p.drained:
		return Drain, ""
	}
	return Apply, ""
}

// at says whether a node runs a version, and nothing is left to do.
func (n Node) at(version string) bool { return n.Version == version && n.Cordoned == "" }

// startable are the workers that may be started, in the given order, so that at
// most limit are unavailable.
func startable(workers []Node, busy, done map[string]bool, to string, limit int) []Node {
	away := len(busy)
	for _, n := range workers {
		if !n.Ready && n.Cordoned == "" && !busy[n.Name] {
			away++ // not because of us
		}
	}
	var start []Node
	for _, n := range workers {
		may := n.Ready || n.Cordoned != "" // one that was cordoned may be booting
		if away < limit && may && !busy[n.Name] && !done[n.Name] && !n.at(to) {
			start = append(start, n)
			away++
		}
	}
	return start
}
