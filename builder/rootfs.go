package builder

import (
	"encoding/json"
	"fmt"
	"path"

	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// addDisk adds what kbuild puts over the base OS on a disk.
func (t *tree) addDisk(p *Plan, f *files) error {
	if err := t.overlay("templates", templates.Root()); err != nil {
		return err
	}
	if err := t.addRuntime(p, "/etc/containerd/config.toml", "/usr/bin"); err != nil {
		return err
	}
	if err := t.addBaked(p, f); err != nil {
		return err
	}
	release := file("/usr/lib/os-release", "plan", 0o644, "base:/usr/lib/os-release")
	release.Set = disk.OSRelease(p.Spec.Version)
	limit := fmt.Sprintf("# --trial-limit\n[Unit]\nJobTimeoutSec=%ds\n", int64(p.Spec.TrialLimit.Seconds()))
	return t.placeAll(
		release,
		text("/usr/lib/systemd/system/boot-complete.target.d/20-trial-limit.conf", "plan", limit),
		dir(images.StoreDir, "layout"),
	)
}

// addBaked adds what disks and system extensions both hold: what the image says
// of itself, the user's own files, and the programs.
func (t *tree) addBaked(p *Plan, f *files) error {
	baked, err := json.MarshalIndent(p.baked(), "", "  ")
	if err != nil {
		return err
	}
	if f.config != nil {
		if err := t.placeBytes(images.BakedConfig, "plan", 0o644, f.config); err != nil {
			return err
		}
	}
	for name, data := range f.manifests {
		if err := t.placeBytes(path.Join(images.BakedManifest, name), "plan", 0o644, data); err != nil {
			return err
		}
	}
	for name, data := range f.checks {
		if err := t.placeBytes(path.Join(images.BakedChecks, name), "plan", 0o755, data); err != nil {
			return err
		}
	}
	if err := t.addPlugins(p.plugins()); err != nil {
		return err
	}
	return t.placeAll(
		text(images.BakedFile, "plan", string(baked)),
		dir(images.BakedManifest, "layout"),
		file("/usr/bin/kubelet", "kubelet", 0o755, "component:kubelet"),
		file("/usr/bin/kubectl", "kubectl", 0o755, "component:kubectl"),
		file("/usr/bin/kbuild-firstboot", "kbuild-firstboot", 0o755, "program:kbuild-firstboot"),
	)
}

// addPlugins adds the CNI plugins, and has tmpfiles link each into the
// directory of the node that pod networks add their own to.
func (t *tree) addPlugins(names []string) error {
	links := "# Baked CNI plugins, where the runtime and pod networks look for them.\n"
	for _, name := range names {
		baked := "/usr/lib/kbuild/cni/" + name
		if err := t.place(file(baked, "cni plugins", 0o755, "component:cni/"+name)); err != nil {
			return err
		}
		links += "L+ /var/lib/kbuild/opt-cni/bin/" + name + " - - - - " + baked + "\n"
	}
	return t.place(text("/usr/lib/tmpfiles.d/kbuild-plugins.conf", "cni plugins", links))
}
