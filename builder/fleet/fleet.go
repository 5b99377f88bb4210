// Package fleet upgrades the nodes of a running cluster, and removes single nodes
// from it, from the operator's machine.
//
// It installs nothing on a node. Work on a node is done by the node's own
// kbuild-firstboot, which a Job that is pinned to the node starts as a service of
// the host (a nodeTask). After each step, what comes next is decided from what the
// API shows, so that the next run resumes one that was interrupted. A Lease keeps
// two operators from working at the same time.
package fleet

import (
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
)

// Fleet is a cluster whose nodes are worked on.
type Fleet struct {
	Client kubernetes.Interface
	// Report is called for each change; it may be called from several goroutines.
	Report func(Event)
	// Who names the operator to others who try meanwhile.
	Who string
	// Poll is how often a node is observed; 0 is every two seconds.
	Poll time.Duration
	// LeaseTime is how long a Lease is valid without being renewed; 0 is a minute.
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
