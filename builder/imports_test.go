package builder

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/kbuild/kbuild/"

// may says which of kbuild's own packages each room may import, directly or
// not. A room is a path below the module; a name stands for itself and all
// below it.
var may = map[string][]string{
	"cli":                  {"cli"},
	"images":               {"images"},
	"firstboot/config":     {"firstboot/config", "images"},
	"firstboot/host":       {"firstboot/host", "images"},
	"firstboot/outcome":    {},
	"firstboot/containerd": {"firstboot/containerd", "firstboot/host", "firstboot/outcome", "images"},
	"firstboot/cluster":    {"firstboot/cluster", "firstboot/config", "firstboot/host", "firstboot/outcome"},
	"firstboot/node":       {"firstboot/node", "firstboot/cluster", "firstboot/config", "firstboot/host", "firstboot/outcome", "firstboot/pki", "images"},
	"firstboot/kubelet":    {"firstboot/kubelet", "firstboot/config", "firstboot/host", "firstboot/node", "firstboot/outcome", "firstboot/pki", "images", "templates"},
	"firstboot/converge":   {"firstboot/converge", "firstboot/config", "firstboot/host", "firstboot/node", "firstboot/outcome"},
	"firstboot/metadata":   {"firstboot/metadata", "firstboot/config", "firstboot/host", "firstboot/outcome", "images"},
	"firstboot/preflight":  {"firstboot/preflight", "firstboot/config", "firstboot/host", "firstboot/node", "images"},
	"firstboot/slot":       {"firstboot/slot", "firstboot/host", "firstboot/outcome", "images"},
	"firstboot/upgrade": {"firstboot/upgrade", "firstboot/cluster", "firstboot/config", "firstboot/converge", "firstboot/host", "firstboot/kubelet",
		"firstboot/node", "firstboot/outcome", "firstboot/pki", "firstboot/slot", "images", "templates"},
	"firstboot/reset": {"firstboot/reset", "firstboot/cluster", "firstboot/config", "firstboot/containerd", "firstboot/converge", "firstboot/host",
		"firstboot/kubelet", "firstboot/metadata", "firstboot/node", "firstboot/outcome", "firstboot/slot", "images"},
	"firstboot/pki": {"firstboot/pki", "firstboot/config", "firstboot/host", "firstboot/outcome", "images"},
	"templates":     {"templates", "images", "firstboot/config"},
	"firstboot":     {"firstboot", "templates", "images"},
	"firstboot/cmd": {"firstboot", "cli", "templates", "images"},
	"builder":       {"builder", "images", "templates", "firstboot/config"},
	// The operator prepares a cluster, and talks to a running one: authorities,
	// kubeconfigs and tokens are made by the code by which a node makes them.
	// What builds images knows none of it.
	"builder/identity":   {"builder/identity", "images", "firstboot/config", "firstboot/pki", "firstboot/cluster", "firstboot/host"},
	"builder/cmd/kbuild": {"builder", "cli", "images", "templates", "firstboot/config", "firstboot/pki", "firstboot/cluster", "firstboot/host"},
	// It reads what a running cluster is, and has nodes changed by their own
	// kbuild-firstboot.
	"builder/fleet": {"builder/fleet", "images", "templates", "firstboot/config", "firstboot/pki", "firstboot/cluster"},
	"test-vm":       {"test-vm", "images"},
	// The documents' tests read files; only tests import them.
	"docs": {"docs"},
}

// TestImports keeps the arrows of the house pointing down: what builds images
// and what runs on nodes meet in files, never in code.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(strings.ReplaceAll(line, module, ""))
		room := roomOf(f[0])
		for _, imp := range strings.Fields(line)[1:] {
			own, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue
			}
			if !allowed(own, may[room]) {
				t.Errorf("%s imports %s: %s may import only %s", f[0], own, room, strings.Join(may[room], ", "))
			}
		}
	}
}

// roomOf is the longest room that pkg is in.
func roomOf(pkg string) string {
	best := ""
	for room := range may {
		if (pkg == room || strings.HasPrefix(pkg, room+"/")) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

func allowed(pkg string, rooms []string) bool {
	for _, r := range rooms {
		if pkg == r || strings.HasPrefix(pkg, r+"/") {
			return true
		}
	}
	return false
}
