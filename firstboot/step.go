// Package firstboot makes a machine a Kubernetes node.
//
// The work is a list of steps. A step says whether what it stands for is
// already so, and can make it so; Run goes through the list on every boot, so
// first boot, a boot after a power cut and the first boot of a new image are
// the same run. Steps speak to each other through the disk and the cluster,
// never through memory.
package firstboot

import (
	"context"
	"time"
)

// Step is one thing that must hold on a node. Names are kubeadm's phase names
// where kubeadm has the phase.
type Step struct {
	Name string
	// Needs names the earlier steps that must hold before this one may start;
	// steps that do not need each other run side by side. Nil means all of the
	// steps before it in the list.
	Needs []string
	// NeedsOf names further ones where they depend on the machine. It is called
	// once, when the role's part of the list begins.
	NeedsOf func(r *Run) []string
	// Done says whether it is so already. It changes nothing.
	Done func(ctx context.Context, r *Run) (bool, error)
	// Do makes it so. Afterwards Done must hold.
	Do func(ctx context.Context, r *Run) error
	// Limit is how long the step may take, waiting included; zero is no limit.
	Limit time.Duration
	// LimitOf replaces Limit where the limit is part of the node's
	// configuration. It is called when the step starts.
	LimitOf func(r *Run) time.Duration
}

// after returns s with other needs, for lists in which other steps come first.
func (s Step) after(needs ...string) Step {
	s.Needs = needs
	return s
}
