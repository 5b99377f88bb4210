package source

import (
	"io/fs"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// containerdVersion is the containerd of nodes whose kubelet wants a containerd 2
// (images.FactContainerd2). All others have Debian's.
const containerdVersion = "v2.4.2"

// RuntimePrograms are the programs of the container runtime that a source gives
// for a release; none where the runtime is Debian's.
func RuntimePrograms(r images.Release) []string {
	if !r.Has(images.FactContainerd2) {
		return nil
	}
	return []string{"containerd", "containerd-shim-runc-v2", "ctr"}
}

// Containerd is the version of the compiled containerd of nodes of release r,
// "v2.4.2"; empty where a node has that of the Debian tree.
func Containerd(r images.Release) string {
	if r.Has(images.FactContainerd2) {
		return containerdVersion
	}
	return ""
}

// Locked returns the versions of Kubernetes whose modules are pinned in kbuild
// itself, "v1.19.12". For another, the pins are made when it is built.
func Locked() ([]string, error) {
	files, err := fs.Glob(lockFiles, "lock/kubernetes-*.mod")
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(strings.TrimPrefix(f, "lock/kubernetes-"), ".mod")
	}
	return files, nil
}

// containerdBuilds are the build modules of containerd and of its shim, which is
// compiled without gRPC, as upstream does it: one runs for each pod, and it
// speaks ttrpc.
func containerdBuilds() []build {
	const module = "github.com/containerd/containerd/v2"
	set := map[string]string{module + "/version.Version": containerdVersion}
	// Snapshotters that kbuild has no use for are left out.
	const tags = "-tags=urfave_cli_no_docs,no_btrfs,no_devmapper,no_zfs"
	return []build{
		{
			Name: "containerd-" + containerdVersion[1:], Module: module, Version: containerdVersion,
			Programs: map[string]string{"containerd": module + "/cmd/containerd", "ctr": module + "/cmd/ctr"},
			Set:      set, Flags: []string{tags},
		}, {
			Name: "containerdshim-" + containerdVersion[1:], Module: module, Version: containerdVersion,
			Programs: map[string]string{"containerd-shim-runc-v2": module + "/cmd/containerd-shim-runc-v2"},
			Set:      set, Flags: []string{tags + ",no_grpc"},
		},
	}
}
