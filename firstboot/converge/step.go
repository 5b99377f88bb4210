// Package converge is the engine: it takes a machine through a list of steps.
//
// A step says whether what it stands for is already so, and can make it so; Run
// goes through the list on every boot, so first boot, a boot after a power cut
// and the first boot of a new image are the same run. It knows no step by name.
//
// What always holds: a step's Do is called only where its Done said no, and Done
// must say yes afterwards; only the runner sleeps; steps speak to each other
// through the disk and the cluster, never through memory; and how a pass goes is
// told alike to the journal, the console, systemd and the status file.
package converge

import (
	"context"
	"time"

	"github.com/kbuild/kbuild/firstboot/node"
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
	NeedsOf func(m *node.Machine) []string
	// Loads says that the step finds out what the node is: once it holds, the
	// runner loads the node's frozen configuration for the steps that follow.
	Loads bool
	// Done says whether it is so already. It changes nothing: not the disk, and
	// not the machine that it is given.
	Done func(ctx context.Context, m *node.Machine) (bool, error)
	// Do makes it so. Afterwards Done must hold.
	Do func(ctx context.Context, m *node.Machine) error
	// Limit is how long the step may take, waiting included, or since what it
	// waits for last got on (Retry.Progress); zero is no limit.
	Limit time.Duration
	// LimitOf replaces Limit where the limit is part of the node's
	// configuration. It is called when the step starts.
	LimitOf func(m *node.Machine) time.Duration
}
