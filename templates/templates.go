// Package templates holds everything that ends up in a node's image as text:
// files that are added to the base OS and its initrd unchanged, and templates that
// are rendered for a version and a node.
package templates

import (
	"embed"
	"io/fs"

	"github.com/kbuild/kbuild/images"
)

//go:embed all:root
var root embed.FS

//go:embed all:initrd
var initrd embed.FS

//go:embed all:sysext
var sysext embed.FS

//go:embed containerd
var containerd embed.FS

//go:embed butane/node.bu
var butane string

// Root returns the files that are added to the base OS's tree: its paths
// mirror the node's /. An empty file in etc/systemd/system masks a unit.
func Root() fs.FS { return sub(root, "root") }

// Initrd returns the files that are added to the initrd.
func Initrd() fs.FS { return sub(initrd, "initrd") }

// Sysext returns the files that a system extension has beside those of Root
// that it shares.
func Sysext() fs.FS { return sub(sysext, "sysext") }

// Containerd returns the configuration of the containerd that nodes of a release
// have.
func Containerd(r images.Release) []byte {
	name := "containerd/config-1.toml"
	if r.Has(images.FactContainerd2) {
		name = "containerd/config-2.toml"
	}
	b, err := containerd.ReadFile(name)
	if err != nil {
		panic(err) // the names are constants above
	}
	return b
}

func sub(f embed.FS, dir string) fs.FS {
	s, err := fs.Sub(f, dir)
	if err != nil {
		panic(err) // the name is a constant above
	}
	return s
}
