// Package base makes the Debian trees that images are built with and from, and
// keeps them in the cache: the node's operating system, the tools that make
// disks, and, for tests, QEMU and an ordinary Debian.
//
// A tree is made once by mmdebstrap from a recipe, which is fixed data, and is
// never changed afterwards. Its key is the hash of the recipe and of the exact set of
// packages, so two trees with the same key hold the same packages. A tree that
// is in the cache needs no network. An entry of the cache is made in a temporary
// directory and renamed; one whose files no longer match its own record is
// removed and made again.
package base

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbuild/kbuild/builder/progress"
)

// Config says where trees are kept and what they may hold.
type Config struct {
	Cache   string       // kbuild's cache directory; made if missing
	Arch    string       // GOARCH; empty means amd64
	Lock    []Package    // when not empty, any other set of packages is an error; for OS only
	Refresh bool         // ask the network for newer packages even if a tree is cached
	Log     progress.Log // what is happening, in lines for people; may be nil
}

// Package is one Debian package of a tree.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`   // "amd64" or "all"
	SHA256  string `json:"sha256"` // of the .deb, in hex
}

// Tree is a root directory in the cache. It must not be changed.
type Tree struct {
	Dir      string    // the root directory
	Key      string    // hash of the recipe and Packages, in hex
	Packages []Package // what is in it, sorted by name
}

// OS returns the operating system of a node, without anything of Kubernetes.
// The kernel is /usr/lib/modules/VERSION/vmlinuz; /var is empty, and filled by
// tmpfiles.d at boot; /etc has links into /var.
func OS(ctx context.Context, c Config) (Tree, error) { return get(ctx, c, osRecipe) }

// Tools returns the tree in which disks are made: systemd-repart, ukify,
// mkfs.erofs, veritysetup and the like.
func Tools(ctx context.Context, c Config) (Tree, error) {
	c.Lock = nil
	return get(ctx, c, toolsRecipe)
}

// VM returns a tree with QEMU and UEFI firmware.
func VM(ctx context.Context, c Config) (Tree, error) {
	c.Lock = nil
	return get(ctx, c, vmRecipe)
}

// Debian returns an ordinary, mutable Debian with a kernel, before its first
// boot: what the Ignition scenario sets up.
func Debian(ctx context.Context, c Config) (Tree, error) {
	c.Lock = nil
	return get(ctx, c, debianRecipe)
}

func get(ctx context.Context, c Config, r recipe) (Tree, error) {
	t, err := find(ctx, c, r)
	if err != nil {
		return Tree{}, fmt.Errorf("cannot make the %s tree: %w", r.Name, err)
	}
	return t, nil
}

func find(ctx context.Context, c Config, r recipe) (Tree, error) {
	if c.Arch == "" {
		c.Arch = "amd64"
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	r, err := r.forArch(c.Arch)
	if err != nil {
		return Tree{}, err
	}
	dir := filepath.Join(c.Cache, "base")
	// The trees hold set-uid programs: keep other users out.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Tree{}, err
	}
	unlock, err := lock(ctx, filepath.Join(dir, r.Name+"-"+c.Arch+".lock"))
	if err != nil {
		return Tree{}, err
	}
	defer unlock()

	ref := filepath.Join(dir, "recipe-"+r.hash())
	if !c.Refresh {
		key := ""
		if len(c.Lock) > 0 {
			key = treeKey(r, c.Lock)
		} else if b, err := os.ReadFile(ref); err == nil {
			key = string(b)
		}
		if key != "" {
			t, err := open(dir, key)
			if err == nil {
				return t, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				c.Log("the cached %s tree is damaged, and is made again: %v", r.Name, err)
				if err := os.RemoveAll(filepath.Join(dir, key)); err != nil {
					return Tree{}, err
				}
			}
		}
	}
	t, err := makeTree(ctx, c, r, dir)
	if err != nil {
		return Tree{}, err
	}
	return t, writeFile(ref, []byte(t.Key))
}

// open returns the entry of the cache named key, after comparing its files
// with what was recorded when it was made.
func open(dir, key string) (Tree, error) {
	entry := filepath.Join(dir, key)
	want, err := os.ReadFile(filepath.Join(entry, "files.sha256"))
	if err != nil {
		return Tree{}, err
	}
	t := Tree{Dir: filepath.Join(entry, "tree"), Key: key}
	b, err := os.ReadFile(filepath.Join(entry, "packages.json"))
	if err != nil {
		return Tree{}, err
	}
	if err := json.Unmarshal(b, &t.Packages); err != nil {
		return Tree{}, fmt.Errorf("packages.json: %w", err)
	}
	got, err := fingerprint(t.Dir)
	if err != nil {
		return Tree{}, fmt.Errorf("cannot read its files: %w", err) // not ErrNotExist: half of it is there
	}
	if got != string(want) {
		return Tree{}, errors.New("its files do not match its record")
	}
	return t, nil
}
