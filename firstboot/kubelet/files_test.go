package kubelet

import (
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// A worker registers with its taints; a control plane is tainted later.
func TestKubeletTaints(t *testing.T) {
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	n := &config.Node{Role: config.RoleInit}
	n.Init.NodeRegistration.Taints = config.DefaultTaints(release)
	const flag = "--register-with-taints=node-role.kubernetes.io/master:NoSchedule"
	if args := arguments(n, release); slices.Contains(args, flag) {
		t.Errorf("a control plane's flags are %q", args)
	}
	n.Role = config.RoleWorker
	if args := arguments(n, release); !slices.Contains(args, flag) {
		t.Errorf("a worker's flags are %q, want %s", args, flag)
	}
	release, err = images.Lookup("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	if args := arguments(n, release); strings.Contains(strings.Join(args, " "), "container-runtime") {
		t.Errorf("v1.37 is told of its runtime in a file, not by %q", args)
	}
}
