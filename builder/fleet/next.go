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
	Cordon   Step = "cordon"   // let no new pods come
	Drain    Step = "drain"    // evict those that are there
	Apply    Step = "apply"    // reboot into the other slot
	Wait     Step = "wait"     // for something that comes by itself
	Uncordon Step = "uncordon" // let pods come that an earlier run has kept away
	Reset    Step = "reset"    // leave the cluster, and become a new machine
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
	boot                              string       // the boot that the order to reboot was given in
	back                              time.Time    // since when it is back, Ready and not of the new version
	event                             string       // the last Event of a fallback before
	job                               *batchv1.Job // of the order to reboot
	told                              time.Time    // when it was given
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
		return Wait, "it goes down"
	case !n.Ready:
		return Wait, "it boots; it is not Ready yet"
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
	return Failed, fmt.Sprintf("it came back in %s, not in %s: is that what --source holds?", n.Version, to)
}

// nextBefore is next before the reboot.
func nextBefore(n Node, p *progress, to string) (Step, string) {
	switch {
	case n.Version == to && n.Ready && n.Cordoned == "":
		return Done, "it is of " + to + " already"
	case n.Version == to && n.Ready && n.Cordoned == n.BootID:
		return Uncordon, "it is of " + to + " already, and an earlier run has left it cordoned"
	case n.Version == to && n.Ready:
		return Wait, "it is Ready; its boot has not uncordoned it yet"
	case !n.Ready:
		return Wait, "it is not Ready"
	case !p.staged:
		return Stage, ""
	case !p.guarded || !n.Unschedulable || n.Cordoned == "": // one that somebody else has cordoned is marked, too
		return Cordon, ""
	case !p.drained:
		return Drain, ""
	}
	return Apply, ""
}

// at says whether a node is of a version, and nothing is to be done for it.
func (n Node) at(version string) bool { return n.Version == version && n.Cordoned == "" }

// startable are the workers that may be begun with beside those that are away
// already, in the given order, when at most limit may be away.
func startable(workers []Node, flying, done map[string]bool, to string, limit int) []Node {
	away := len(flying)
	for _, n := range workers {
		if !n.Ready && n.Cordoned == "" && !flying[n.Name] {
			away++ // not because of us
		}
	}
	var start []Node
	for _, n := range workers {
		may := n.Ready || n.Cordoned != "" // one that was cordoned may be booting
		if away < limit && may && !flying[n.Name] && !done[n.Name] && !n.at(to) {
			start = append(start, n)
			away++
		}
	}
	return start
}
