package converge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// Roles are the roles that a list exists for.
func Roles() []string {
	return []string{"", string(config.RoleInit), string(config.RoleControlPlane), string(config.RoleWorker)}
}

// Options narrow a pass through the list.
type Options struct {
	Until string   // stop after this step; empty is the end of the list
	Skip  []string // steps that are left out
	Only  string   // this step alone, after those that tell who the node is
}

// learns refuses steps that build on the cluster's configuration on a node that
// has not found its cluster, where the step that finds it is left out.
func (o Options) learns(n *config.Node, steps []Step) error {
	finds := slices.IndexFunc(steps, func(s Step) bool { return s.Loads })
	if finds < 0 || n.KnowsCluster() {
		return nil
	}
	name := steps[finds].Name
	only := slices.IndexFunc(steps, func(s Step) bool { return s.Name == o.Only })
	if only <= finds && !o.skips(name) {
		return nil
	}
	return fmt.Errorf("cannot go on: this node has not found its cluster yet; run `kbuild-firstboot phase %s` first", name)
}

// within says whether steps are all that is asked for.
func (o Options) within(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Name == o.Until || s.Name == o.Only })
}

// skips says whether a step is left out, or the phase that it is part of.
func (o Options) skips(name string) bool {
	phase, _, _ := strings.Cut(name, "/")
	return slices.Contains(o.Skip, name) || slices.Contains(o.Skip, phase)
}

// check refuses names that no list has.
func (o Options) check(list func(string) []Step) error {
	names := map[string]bool{"": true}
	for _, role := range Roles() {
		for _, s := range list(role) {
			names[s.Name] = true
		}
	}
	for _, n := range append([]string{o.Until, o.Only}, o.Skip...) {
		if !names[n] {
			return UnknownStep{n}
		}
	}
	return nil
}

// UnknownStep is the error of a step's name that no list has.
type UnknownStep struct{ Name string }

func (e UnknownStep) Error() string {
	return fmt.Sprintf("there is no step %q; `kbuild-firstboot plan` lists them", e.Name)
}
