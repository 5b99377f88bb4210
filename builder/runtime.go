package builder

import (
	"path"
	"slices"

	"github.com/kbuild/kbuild/builder/source"
	"github.com/kbuild/kbuild/templates"
)

// The container runtime of a node is Debian's or one that the source gives: a fact
// of the release decides. runc is Debian's in either case.

// runtimePackage is the Debian package whose programs the source's replace.
const runtimePackage = "containerd"

// addRuntime adds the runtime's configuration as the file config, and the programs
// that the source gives to the directory bin.
func (t *tree) addRuntime(p *Plan, config, bin string) error {
	r := p.Want.Release
	if err := t.placeBytes(config, "templates", 0o644, templates.Containerd(r)); err != nil {
		return err
	}
	for _, name := range source.RuntimePrograms(r) {
		if err := t.place(file(path.Join(bin, name), "container runtime", 0o755, "component:"+name)); err != nil {
			return err
		}
	}
	return nil
}

// replaced are the Debian packages whose programs are not in an image, since its
// components take their place.
func replaced(cs []source.Component) []string {
	if slices.ContainsFunc(cs, func(c source.Component) bool { return c.Name == runtimePackage }) {
		return []string{runtimePackage}
	}
	return nil
}
