package builder

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// TestSysextHidesNothing: merged over any operating system, the extension must
// not replace what that needs. Directories that are links on some systems
// would be replaced whole.
func TestSysextHidesNothing(t *testing.T) {
	p := &Plan{Spec: Spec{Version: "v1.19.12"}}
	tr, err := p.sysextTree(nil, base.Tree{})
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]bool{
		"/usr/bin/kubelet": true, "/usr/bin/kubectl": true, "/usr/bin/kbuild-firstboot": true,
		"/usr/lib/systemd/system/containerd.service":            true, // the node's, whoever else has one
		"/usr/lib/systemd/system/kubelet.service":               true,
		"/usr/lib/systemd/system/basic.target.d/10-kbuild.conf": true,
		"/usr/lib/sysctl.d/90-kbuild.conf":                      true,
		"/usr/libexec/kubernetes/kubelet-plugins/volume/exec":   true,
		"/usr/lib/extension-release.d/extension-release.kbuild": true,
		"/usr/lib/modules-load.d/kbuild.conf":                   true,
	}
	for _, name := range tr.paths() {
		if strings.Contains(path.Dir(name)+"/", "/kbuild/") || strings.HasPrefix(path.Base(name), "kbuild") || strings.Contains(name, "/kbuild-") {
			continue
		}
		if !shared[name] {
			t.Errorf("%s is in the extension: say here why it hides nothing of the operating system", name)
		}
	}
}

// TestSysextIsWhole: every program and unit that the extension's units name is
// in it, or is systemd's; and its image store is where its own mount shows it.
func TestSysextIsWhole(t *testing.T) {
	p := &Plan{Spec: Spec{Version: "v1.19.12", Source: "modules"}}
	osTree := base.Tree{Dir: t.TempDir()}
	for name := range sysextBase {
		file := filepath.Join(osTree.Dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	tr, err := p.sysextTree(&source.Output{Binaries: map[string]string{"kubelet": program, "kubectl": program}}, osTree)
	if err != nil {
		t.Fatal(err)
	}
	fb := tr.entries["/usr/bin/kbuild-firstboot"]
	fb.file = program
	tr.entries["/usr/bin/kbuild-firstboot"] = fb
	root := t.TempDir()
	if err := tr.write(root); err != nil {
		t.Fatal(err)
	}
	for _, name := range tr.paths() {
		e := tr.entries[name]
		if !strings.HasPrefix(name, "/usr/lib/systemd/system/") || e.dir {
			continue
		}
		for line := range strings.Lines(string(e.data)) {
			if exec, ok := strings.CutPrefix(line, "ExecStart="); ok {
				prog := strings.Fields(exec)[0]
				_, err := os.Stat(filepath.Join(root, prog))
				if err != nil && !strings.HasPrefix(path.Base(prog), "systemd-") {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	link, err := os.Readlink(filepath.Join(root, images.StoreDir))
	if err != nil {
		t.Fatal(err)
	}
	want := "/run/kbuild/sysext" + sysextStore
	if got := path.Join(path.Dir(images.StoreDir), link); got != want {
		t.Errorf("the image store is at %s, want %s", got, want)
	}
	unit := string(tr.entries["/usr/lib/systemd/system/kbuild-sysext.service"].data)
	if !strings.Contains(unit, " /run/kbuild/sysext\n") {
		t.Errorf("no unit mounts the extension at /run/kbuild/sysext:\n%s", unit)
	}
}
