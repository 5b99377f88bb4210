package source

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// osTools are the programs that kube-proxy and flanneld run. iptables is
// whichever the tree's alternatives pick (nft in Debian): the same tree is the
// node's, so that image and host agree on the backend. All but the optional
// ones must be there.
func osTools() (must, may []string) {
	for _, ip := range []string{"iptables", "ip6tables"} {
		must = append(must, "usr/sbin/"+ip, "usr/sbin/"+ip+"-save", "usr/sbin/"+ip+"-restore")
	}
	return append(must, "usr/sbin/conntrack", "usr/sbin/ipset", "usr/sbin/modprobe", "usr/bin/kmod", "usr/bin/ip"),
		[]string{"usr/sbin/nft", "usr/sbin/ip"}
}

// closure collects files of a Debian tree together with the libraries that
// they want.
type closure struct {
	tree  string
	files map[string]file
}

// toolLayer is the layer of osTools: programs, libraries, iptables' plugins.
func toolLayer(tree string) (layer, error) {
	c := closure{tree: tree, files: map[string]file{}}
	var missing []string
	must, may := osTools()
	for _, p := range append(must, may...) {
		err := c.add(p)
		if errors.Is(err, fs.ErrNotExist) && slices.Contains(may, p) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && c.files[p].Path == "" {
			missing = append(missing, "/"+p)
			continue
		}
		if err != nil {
			return layer{}, fmt.Errorf("cannot take %s from %s: %w", p, tree, err)
		}
	}
	if len(missing) > 0 {
		return layer{}, fmt.Errorf("cannot make the images of kube-proxy and flannel: %s lacks %s: it must hold Debian's iptables, conntrack, ipset, kmod and iproute2", tree, strings.Join(missing, ", "))
	}
	plugins, err := filepath.Glob(filepath.Join(tree, "usr/lib/*/xtables/*.so"))
	if err != nil {
		return layer{}, err
	}
	for _, p := range plugins {
		if err := c.add(p[len(filepath.Clean(tree))+1:]); err != nil {
			return layer{}, fmt.Errorf("cannot take %s: %w", p, err)
		}
	}
	for _, p := range []string{"etc/protocols", "etc/services"} {
		if err := c.add(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return layer{}, err
		}
	}
	for _, p := range []string{"bin", "sbin", "lib", "lib64"} { // Debian's merged /usr
		if to, err := os.Readlink(filepath.Join(tree, p)); err == nil {
			c.files[p] = file{Path: p, Link: to}
		}
	}
	c.files["usr/lib/modules"] = file{Path: "usr/lib/modules", Mode: 0o755} // the node's are mounted here
	c.files["run"] = file{Path: "run", Mode: 0o755}
	l := layer{name: "iptables, conntrack, ipset, kmod, iproute2"}
	for _, f := range c.files {
		l.files = append(l.files, f)
	}
	return l, nil
}

// add takes a file at name, through links, and what it is linked against.
func (c closure) add(name string) error {
	real, err := resolve(c.tree, name)
	if err != nil {
		return err
	}
	at := filepath.Join(c.tree, real)
	st, err := os.Lstat(at)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", at)
	}
	// The directory may be a link itself (/lib64); the name in it is kept.
	dir, err := resolve(c.tree, path.Dir(name))
	if err != nil {
		return err
	}
	if name = path.Join(dir, path.Base(name)); name != real {
		c.files[name] = file{Path: name, Link: "/" + real}
	}
	if _, ok := c.files[real]; ok {
		return nil
	}
	c.files[real] = file{Path: real, Mode: int64(st.Mode().Perm() &^ 0o022), From: at}
	wants, err := c.wants(at)
	if err != nil {
		return err
	}
	for _, w := range wants {
		if err := c.add(w); err != nil {
			return fmt.Errorf("%s wants it: %w", real, err)
		}
	}
	return nil
}

// wants are the interpreter and the libraries of an ELF file; none of others.
func (c closure) wants(at string) ([]string, error) {
	in, err := os.Open(at)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if n, _ := io.ReadFull(in, magic); string(magic[:n]) != elf.ELFMAG {
		return nil, nil
	}
	f, err := elf.NewFile(in)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", at, err)
	}
	var wants []string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, err
			}
			wants = append(wants, strings.Trim(string(b), "/\x00"))
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	run, err := f.DynString(elf.DT_RUNPATH)
	if err != nil {
		return nil, err
	}
	for _, lib := range libs {
		p, err := c.find(lib, run)
		if err != nil {
			return nil, err
		}
		wants = append(wants, p)
	}
	return wants, nil
}

// find looks for a library where ld.so(8) does in Debian: run path, then the
// directories of the architecture.
func (c closure) find(lib string, run []string) (string, error) {
	var dirs []string
	for _, r := range run {
		for _, d := range strings.Split(r, ":") {
			dirs = append(dirs, strings.TrimPrefix(d, "/"))
		}
	}
	triplets, err := filepath.Glob(filepath.Join(c.tree, "usr/lib/*-linux-gnu*"))
	if err != nil {
		return "", err
	}
	for _, t := range triplets {
		dirs = append(dirs, path.Join("usr/lib", filepath.Base(t)))
	}
	for _, d := range append(dirs, "usr/lib", "lib64") {
		p := path.Join(d, lib)
		if _, err := resolve(c.tree, p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("no library %s in %s", lib, c.tree)
}

// resolve follows symbolic links below tree as if it were the root, and
// returns the path of what is there in the end.
func resolve(tree, name string) (string, error) {
	done, rest := "", strings.Split(name, "/")
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if done = path.Dir(done); done == "." {
				done = ""
			}
			continue
		}
		at := path.Join(done, part)
		st, err := os.Lstat(filepath.Join(tree, at))
		if err != nil {
			return "", err
		}
		if st.Mode().Type() != fs.ModeSymlink {
			done = at
			continue
		}
		if hops++; hops > 40 {
			return "", fmt.Errorf("too many links at %s in %s", name, tree)
		}
		to, err := os.Readlink(filepath.Join(tree, at))
		if err != nil {
			return "", err
		}
		if path.IsAbs(to) {
			done = ""
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done, nil
}
