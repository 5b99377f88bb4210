package firstboot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/preflight"
)

// The machine of these tests has no container runtime and hardly a file, so
// that many checks fail; which, package preflight tests.
func TestPreflightStep(t *testing.T) {
	ctx := context.Background()
	m := newTestMachine(t, map[string]string{userDataFile: shortUserData})
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range preflight.Init(m.Machine) {
		names = append(names, strings.ToLower(c.Name))
	}
	m.Host.Probe.CPUs = func() int { return 1 }
	m.Node.Init.NodeRegistration.IgnorePreflightErrors = names
	stopped, stop := context.WithCancel(ctx)
	stop()
	before := m.tree(t)
	if err := stepPreflight().Do(stopped, m.Machine); err == nil {
		t.Error("it passes after it was stopped")
	}
	if len(m.tree(t)) != len(before) {
		t.Error("a preflight that was stopped leaves something behind")
	}
	if err := runSteps(ctx, m.Machine, stepPreflight()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(m.dir, preflightFile))
	if err != nil || !strings.Contains(string(b), "NumCPU: the machine has 1 CPU") {
		t.Errorf("%s %v", b, err)
	}
	if !strings.Contains(m.log.String(), "check=NumCPU") {
		t.Errorf("log: %s", m.log.String())
	}
	// Now the ports and files are the node's own.
	m.Node.Init.NodeRegistration.IgnorePreflightErrors = nil
	if err := runSteps(ctx, m.Machine, stepPreflight()); err != nil {
		t.Errorf("a machine that passed is looked at again: %v", err)
	}
}

func TestPreflightFails(t *testing.T) {
	ctx := context.Background()
	m := newTestMachine(t, map[string]string{userDataFile: shortUserData})
	if err := runSteps(ctx, m.Machine, firstSteps()...); err != nil {
		t.Fatal(err)
	}
	m.Host.Probe.CPUs = func() int { return 1 }
	w := why(t, stepPreflight().Do(ctx, m.Machine))
	for _, want := range []string{"NumCPU: ", "CRI: ", "ImagePull: image k8s.gcr.io/kube-apiserver:v1.19.12 is not in this node image", "ignorePreflightErrors"} {
		if !strings.Contains(w, want) {
			t.Errorf("it lacks %q:\n%s", want, w)
		}
	}
	if m.Host.Exists(preflightFile) {
		t.Error("it passed")
	}
}
