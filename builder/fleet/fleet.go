// Package fleet takes the nodes of a running cluster to another version, and
// single nodes out of it, from the operator's machine.
//
// Nothing of it stays on a node. What is done there is done by the node's own
// kbuild-firstboot, which a Job that is pinned to the node starts as a service
// of the host. What comes next is decided each time anew from what the API
// shows, so that a run that was cut is taken up by the next one; a Lease keeps
// two operators apart.
package fleet

import (
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
)

// Fleet is a cluster whose nodes are worked on.
type Fleet struct {
	Client kubernetes.Interface
	// Report is told of each change; it may be called from several goroutines.
	Report func(Event)
	// Who is the operator, for others who come meanwhile.
	Who string
	// Poll is the time between two looks at a node; 0 is two seconds.
	Poll time.Duration
	// LeaseTime is how long the Lease holds that is not renewed; 0 is a minute.
	LeaseTime time.Duration

	renewing sync.Mutex // of the Lease
}

// Event is a change that an operator wants to see.
type Event struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node,omitempty"` // empty: the cluster
	Step    Step      `json:"step"`
	Message string    `json:"message,omitempty"`
}

func (f *Fleet) report(node string, s Step, message string) {
	if f.Report != nil {
		f.Report(Event{time.Now(), node, s, message})
	}
}
