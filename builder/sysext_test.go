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
	p, _ := planned(t, Spec{Version: "v1.19.12", Formats: []string{ignitionFormat}})
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
	for _, e := range p.Sysext {
		name := e.Path
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
	for _, version := range []string{"v1.19.12", "v1.37.2"} {
		t.Run(version, func(t *testing.T) { sysextIsWhole(t, version) })
	}
}

func sysextIsWhole(t *testing.T, version string) {
	p, in := laidOut(t, version)
	osTree := base.Tree{Dir: t.TempDir()}
	for _, e := range p.Sysext {
		name, ok := strings.CutPrefix(e.Content, "base:")
		if !ok {
			continue
		}
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
	root := t.TempDir()
	binaries := map[string]string{}
	for _, c := range p.Components {
		binaries[c.Name] = program
	}
	c := contents{bytes: in.content, programs: source.Output{Binaries: binaries}, base: osTree, firstboot: program}
	if err := writeTree(root, p.Sysext, c); err != nil {
		t.Fatal(err)
	}
	unit := ""
	for _, e := range p.Sysext {
		name := e.Path
		if !strings.HasPrefix(name, "/usr/lib/systemd/system/") || e.Kind != "file" {
			continue
		}
		data := string(in.content[e.Content])
		if name == "/usr/lib/systemd/system/kbuild-sysext.service" {
			unit = data
		}
		for line := range strings.Lines(data) {
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
	if !strings.Contains(unit, " /run/kbuild/sysext\n") {
		t.Errorf("no unit mounts the extension at /run/kbuild/sysext:\n%s", unit)
	}
}

// planned is the Plan of a Spec, and what it refers to.
func planned(t *testing.T, s Spec) (*Plan, *Inputs) {
	t.Helper()
	src, err := source.Open("modules", source.Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p, in, err := Resolve(t.Context(), s, src)
	if err != nil {
		t.Fatal(err)
	}
	return p, in
}
