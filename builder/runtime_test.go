package builder

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/images"
)

// TestRuntime: which containerd an image has, and that its configuration goes
// with it; Debian's is not in the bill of materials where it is written over.
func TestRuntime(t *testing.T) {
	for version, compiled := range map[string]bool{"v1.19.12": false, "v1.37.2": true} {
		p, in := laidOut(t, version)
		for _, c := range []struct {
			entries     []Entry
			config, bin string
			debian      bool // Debian's programs are named
		}{
			{p.Tree, "/etc/containerd/config.toml", "/usr/bin/", false},
			{p.Sysext, "/usr/lib/kbuild/containerd.toml", "/usr/lib/kbuild/bin/", true},
		} {
			at := map[string]Entry{}
			for _, e := range c.entries {
				at[e.Path] = e
			}
			config := string(in.content[at[c.config].Content])
			if got := strings.Contains(config, "version = 3"); got != compiled || !strings.Contains(config, "SystemdCgroup = true") {
				t.Errorf("%s: %s is for another containerd:\n%s", version, c.config, config)
			}
			for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
				want := ""
				if compiled {
					want = "component:" + name
				} else if c.debian {
					want = "base:/usr/bin/" + name
				}
				if got := at[c.bin+name]; got.Content != want || want != "" && got.Mode != "0755" {
					t.Errorf("%s: %s is %q, mode %s, want %q", version, c.bin+name, got.Content, got.Mode, want)
				}
			}
		}

		m := Manifest{RootHash: "00", Components: p.Components, Packages: []base.Package{{Name: "containerd", Version: "1.7.24", Arch: "amd64"}, {Name: "runc", Version: "1.1.15", Arch: "amd64"}}}
		file := filepath.Join(t.TempDir(), "sbom.json")
		if err := writeSBOM(file, m); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var bom cdx.BOM
		if err := json.Unmarshal(b, &bom); err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, c := range *bom.Components {
			have[c.PackageURL] = true
		}
		for purl, want := range map[string]bool{
			"pkg:golang/github.com/containerd/containerd/v2@v2.4.2": compiled,
			"pkg:deb/debian/containerd@1.7.24?arch=amd64":           !compiled,
			"pkg:deb/debian/runc@1.1.15?arch=amd64":                 true,
		} {
			if have[purl] != want {
				t.Errorf("%s: the bill of materials has %s: %v, want %v", version, purl, have[purl], want)
			}
		}
	}
}

// laidOut is the part of a Plan that says what disk and extension of a version
// hold: also of one that kbuild makes no nodes of yet.
func laidOut(t *testing.T, version string) (*Plan, *Inputs) {
	t.Helper()
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	src, err := source.Open("modules", source.Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	f := &files{want: source.Want{Release: r, Arch: "amd64", CNI: "flannel"}, inputs: &Inputs{content: map[string][]byte{}}}
	p := &Plan{Spec: Spec{Version: version, CNI: "flannel"}, Want: f.want}
	if p.Components, err = src.Resolve(t.Context(), p.Want); err != nil {
		t.Fatal(err)
	}
	disk, extension := newTree(f.inputs.content), newTree(f.inputs.content)
	if err := errors.Join(disk.addDisk(p, f), extension.addSysext(p, f)); err != nil {
		t.Fatal(err)
	}
	p.Tree, p.Sysext = disk.list(), extension.list()
	return p, f.inputs
}
