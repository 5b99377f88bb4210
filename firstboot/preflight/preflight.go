// Package preflight looks whether a machine can become a node before anything is
// changed on it.
//
// The checks are those of kubeadm init and join (cmd/kubeadm/app/preflight), under
// kubeadm's names, so that ignorePreflightErrors means what it means there. An
// immutable image has no need of some, and a few are our own:
//
//	kubeadm's check             here
//	CRI                         asks the runtime over its socket, as crictl is not in the image
//	FileExisting-crictl         left out: kbuild speaks CRI itself
//	FileExisting-ebtables, -tc  left out: they only warn, and kubelet and CNI plugins of these versions use neither
//	KubernetesVersion           left out: kbuild and the image's Kubernetes are one build
//	Service-Kubelet             left out: kbuild-firstboot starts the kubelet itself, the unit is not enabled on purpose
//	Service-Docker, IsDockerSystemdCheck  left out: there is no Docker
//	ImagePull                   every image must be in the image's own store
//	SystemVerification          asks the running kernel for cgroups and namespaces instead of its build configuration
//	KubeletVersion              must be the image's version exactly, not only within the skew
//	ExternalEtcdVersion         asks each member once; the runner asks again
//	VarSpace, IPVS, BootTime    our own
package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kbuild/kbuild/firstboot/node"
)

// machine is what is looked at.
type machine struct{ *node.Machine }

// Check is one check.
type Check struct {
	Name string // kubeadm's name of it
	run  func(ctx context.Context, f *Findings)
}

// Finding is something that a check found.
type Finding struct {
	Check  string
	What   string
	Remedy string
	// Late is set where nobody answered in time: that says nothing of what the
	// check looks at, and the next look may find it well.
	Late bool
}

func (f Finding) String() string {
	s := f.Check + ": " + f.What
	if f.Remedy != "" {
		s += "; " + f.Remedy
	}
	return s
}

// Findings is what checks found.
type Findings struct {
	check    string
	Warnings []Finding
	Errors   []Finding
}

func (f *Findings) warn(remedy, format string, args ...any) {
	f.Warnings = append(f.Warnings, Finding{Check: f.check, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (f *Findings) fail(remedy, format string, args ...any) {
	f.Errors = append(f.Errors, Finding{Check: f.check, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// ask calls question, which puts what it learns into f, with the time that
// somebody may take to answer. What failed because the time was up is not what
// the check found: in its place f says who has not answered.
func (f *Findings) ask(ctx context.Context, who string, question func(ctx context.Context)) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := len(f.Errors)
	question(limited)
	if len(f.Errors) > errs && limited.Err() != nil && ctx.Err() == nil {
		f.Errors = append(f.Errors[:errs], Finding{Check: f.check, Late: true,
			What: fmt.Sprintf("%s has not answered within %s", who, timeout), Remedy: "it is asked again: a busy machine is slow, not broken"})
	}
}

// Err is nil if no check failed.
func (f Findings) Err() error {
	if len(f.Errors) == 0 {
		return nil
	}
	lines := make([]string, len(f.Errors))
	for i, e := range f.Errors {
		lines[i] = e.String()
	}
	what := "this machine cannot become a node as it is:\n"
	if !slices.ContainsFunc(f.Errors, func(e Finding) bool { return !e.Late }) {
		what = "not all checks of this machine have been answered yet:\n"
	}
	return errors.New(what + strings.Join(lines, "\n") +
		"\nignorePreflightErrors in user-data makes a check's errors warnings, by its name")
}

// Run runs the checks side by side and returns what they found, in the order
// of the checks. The errors of checks named in ignore, in whatever case, are
// warnings.
func Run(ctx context.Context, checks []Check, ignore []string) Findings {
	found := make([]Findings, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		found[i].check = c.Name
		wg.Go(func() { c.run(ctx, &found[i]) })
	}
	wg.Wait()
	var all Findings
	for i, c := range checks {
		f := found[i]
		if slices.ContainsFunc(ignore, func(n string) bool { return strings.EqualFold(n, c.Name) }) {
			f.Warnings, f.Errors = append(f.Warnings, f.Errors...), nil
		}
		all.Warnings = append(all.Warnings, f.Warnings...)
		all.Errors = append(all.Errors, f.Errors...)
	}
	return all
}
