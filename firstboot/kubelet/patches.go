package kubelet

import (
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// patched is the configuration with the user's patches for it.
func patched(m *node.Machine, conf []byte) ([]byte, error) {
	dir, applies := m.Node.Init.Patches, m.Baked.Release.Has(images.FactPatchKubelet)
	if dir == "" || !applies && !m.Host.Exists(dir) {
		return conf, nil
	}
	p, err := templates.ReadPatches(m.Host.Root.FS(), dir)
	if err != nil {
		return nil, err
	}
	if _, err := p.Check(m.Baked.Release); err != nil || !applies {
		return conf, err
	}
	return p.Kubelet(conf)
}
