package builder

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/builder/ignition"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

// A system extension holds what a node has beyond its operating system:
// kubelet, kbuild-firstboot, CNI plugins, container images, units, and a
// container runtime, since that of the operating system may be of any age or
// missing. Files that could hide those of the operating system are in kbuild's own
// directories, and none is in a directory that is a link on some systems
// (/usr/sbin, /usr/lib64).

// sysextShared are the files of the image's root that an extension needs too,
// and where they go; empty: to the same path. The rest is left to the operating
// system.
var sysextShared = map[string]string{
	"usr/lib/systemd/system/kbuild-firstboot.service": "",
	"usr/lib/systemd/system/kubelet.service":          "",
	"usr/lib/modules-load.d/kbuild.conf":              "",
	"usr/lib/sysctl.d/90-kbuild.conf":                 "",
	"usr/lib/tmpfiles.d/kbuild-node.conf":             "",
}

// sysextBin is the directory of the runtime's programs in an extension.
const sysextBin = "usr/lib/kbuild/bin"

// sysextBase are the files of the base OS that an extension includes, and where
// they go, by package: the runtime, where it is Debian's, the one library that it
// needs besides libc, and their copyright files.
var sysextBase = map[string]map[string]string{
	runtimePackage: {
		"usr/bin/containerd":                 sysextBin + "/containerd",
		"usr/bin/containerd-shim-runc-v2":    sysextBin + "/containerd-shim-runc-v2",
		"usr/bin/ctr":                        sysextBin + "/ctr",
		"usr/share/doc/containerd/copyright": "usr/share/doc/kbuild/containerd.copyright",
	},
	"runc": {
		"usr/sbin/runc":                sysextBin + "/runc",
		"usr/share/doc/runc/copyright": "usr/share/doc/kbuild/runc.copyright",
	},
	"libseccomp2": {
		"usr/lib/x86_64-linux-gnu/libseccomp.so.2": "usr/lib/kbuild/lib/libseccomp.so.2",
		"usr/share/doc/libseccomp2/copyright":      "usr/share/doc/kbuild/libseccomp2.copyright",
	},
}

// sysextPackages are the packages of the base OS that the extension takes files
// from, sorted.
func (p *Plan) sysextPackages() []string {
	all := slices.Sorted(maps.Keys(sysextBase))
	return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(replaced(p.Components), name) })
}

// sysextStore is the image store inside the extension. images.StoreDir is a
// link to it on another mount of the extension; templates/sysext says why.
const (
	sysextStore = "/usr/lib/kbuild/store"
	storeLink   = "../../../run/kbuild/sysext" + sysextStore
)

// extensionRelease says that the extension fits every operating system of the
// architecture (extension-release(5)), and has systemd see its units.
const extensionRelease = "ID=_any\nARCHITECTURE=x86-64\nEXTENSION_RELOAD_MANAGER=1\nIMAGE_ID=kbuild\nIMAGE_VERSION=%s\n"

// addSysext adds what the extension holds, but for the container images.
func (t *tree) addSysext(p *Plan, f *files) error {
	if err := t.overlay("templates", templates.Sysext()); err != nil {
		return err
	}
	for name, to := range sysextShared {
		data, err := fs.ReadFile(templates.Root(), name)
		if err != nil {
			return err
		}
		if to == "" {
			to = name
		}
		if err := t.placeBytes(to, "templates", 0o644, data); err != nil {
			return err
		}
	}
	for _, pkg := range p.sysextPackages() {
		for name, to := range sysextBase[pkg] {
			mode := fs.FileMode(0o644)
			if strings.HasPrefix(to, sysextBin) {
				mode = 0o755
			}
			if err := t.place(file(to, "base", mode, "base:/"+name)); err != nil {
				return err
			}
		}
	}
	if err := t.addRuntime(p, "/usr/lib/kbuild/containerd.toml", sysextBin); err != nil {
		return err
	}
	if err := t.addBaked(p, f); err != nil {
		return err
	}
	return t.placeAll(
		text("/usr/lib/extension-release.d/extension-release.kbuild", "layout", fmt.Sprintf(extensionRelease, p.Spec.Version)),
		dir(sysextStore, "layout"),
		link(images.StoreDir, "layout", storeLink),
		dir("/usr/libexec/kubernetes/kubelet-plugins/volume/exec", "layout"), // the kubelet insists on it
	)
}

// buildIgnition makes the system extension and the configs that install it, in
// the directory result.
func (p *Plan) buildIgnition(ctx context.Context, work, result string, tools base.Tree, c contents, env Env) (disk.ExtensionOutput, []BakedImage, error) {
	var x disk.ExtensionOutput
	env.Log("assembling the system extension")
	root := filepath.Join(work, "sysext")
	if err := os.Mkdir(root, 0o755); err != nil {
		return x, nil, err
	}
	baked, err := p.fill(ctx, root, p.Sysext, sysextStore, c, env)
	if err != nil {
		return x, nil, err
	}
	x, err = disk.Extension(ctx, disk.ExtensionInput{
		Layout: disk.Layout{Seed: p.seed() + " sysext", Version: p.Spec.Version}, Root: root, Tools: tools, Epoch: p.Spec.Epoch,
		Out: result, Name: "sysext", Log: env.Log,
	})
	if err != nil {
		return x, nil, err
	}
	f, err := outputFile(result, ignition.SysextName)
	if err != nil {
		return x, nil, err
	}
	merge := c.bytes[p.Spec.Butane] // none where it is empty
	configs, err := ignition.Make(templates.ButaneParams{URL: p.Spec.SysextURL, SHA256: f.SHA256, RootHash: x.RootHash, Merge: string(merge)})
	if err != nil {
		return x, nil, err
	}
	mode := fs.FileMode(0o644)
	if merge != nil {
		mode = 0o600
		env.Log("node.bu and node.ign include the config of --butane with its secrets, so only you can read them")
	}
	for name, data := range map[string][]byte{"node.bu": configs.Butane, "node.ign": configs.Ignition} {
		if err := os.WriteFile(filepath.Join(result, name), data, mode); err != nil {
			return x, nil, err
		}
	}
	if p.Spec.SysextURL == ignition.DefaultURL {
		env.Log("node.ign downloads the placeholder %s: host sysext.raw, and give its address with --sysext-url", ignition.DefaultURL)
	}
	return x, baked, nil
}
