package builder

import (
	"runtime/debug"

	"github.com/kbuild/kbuild/images"
)

// version is set by the linker, as the Makefile does: -X …/builder.version=V.
var version string

// Version is kbuild's own: what the Makefile took from git, else the module
// version of `go install`, else "devel". An image names it, since the same
// bytes can only be built with the same kbuild.
func Version() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}

// Versions are the Kubernetes versions that kbuild can build, oldest first.
func Versions() []images.Range { return images.Known() }
