package source

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/progress"
)

// lockFiles holds the go.mod of every build module, as NAME.mod, and one go.sum
// for all of them, since most modules are in several. They pin each module that
// is compiled, whatever the proxy says. TestRelock writes them.
//
//go:embed lock
var lockFiles embed.FS

// build is a build module: a Go module of its own, generated, in which the
// programs of one upstream module are compiled.
type build struct {
	Name    string // names the lock: "kubernetes-v1.19.12"
	Module  string // the upstream module
	Version string
	// Programs maps the file to make to the package that it is made from.
	Programs map[string]string
	Also     []string          // further packages that the lock covers
	Flags    []string          // go build flags beyond the usual, e.g. -tags
	Set      map[string]string // linker's -X: variable to value
	Require  []string          // further modules, "PATH VERSION"
	Replace  []string          // replacements, in go.mod's syntax
	Files    map[string]string // files of the build module beside go.mod
	// Staging is set where Module replaces modules by directories of its own,
	// each of which is published as k8s.io/NAME at this version. Replace
	// comes before it.
	Staging string
	// Overlay gives files that the upstream module lacks or has in a form
	// that cannot be used: path below the module to contents. The module is
	// then compiled through a link to its place in the module cache, since
	// the go command refuses overlays in there.
	Overlay map[string]string
	// OpenAPI generates pkg/generated/openapi/zz_generated.openapi.go, by the
	// recipe of that revision (openAPIRevision); zero does not.
	OpenAPI int
}

// kind is the first part of the name: "kubernetes".
func (b build) kind() string { return b.Name[:strings.Index(b.Name, "-")] }

func (b build) linked() bool { return len(b.Overlay) > 0 || b.OpenAPI > 0 }

// sum is the module sum (h1:…) in the lock; empty without a lock.
func (b build) sum() string {
	pair, _ := b.committed()
	return findSum(pair.Sum, b.Module, b.Version)
}

func findSum(goSum, module, version string) string {
	_, rest, _ := strings.Cut("\n"+goSum, "\n"+module+" "+version+" ")
	sum, _, _ := strings.Cut(rest, "\n")
	return sum
}

// lockPair is the go.mod and go.sum of a build module. The go.sum may hold
// further modules.
type lockPair struct{ Mod, Sum string }

// committed is the lock of b in lockFiles, if it has one there.
func (b build) committed() (lockPair, bool) {
	mod, errMod := fs.ReadFile(lockFiles, "lock/"+b.Name+".mod")
	sum, errSum := fs.ReadFile(lockFiles, "lock/go.sum")
	if errMod != nil || errSum != nil {
		return lockPair{}, false
	}
	return lockPair{string(mod), string(sum)}, true
}

// pins is what a lock pins for b, for keys of the cache: go.mod and the sum of
// the upstream module say which version each module has, and a version of a
// module never has but one sum.
func (l lockPair) pins(b build) []string {
	return []string{l.Mod, findSum(l.Sum, b.Module, b.Version)}
}

// compiler compiles build modules into a store.
type compiler struct {
	store store
	arch  string
}

// lock returns a build's go.mod and go.sum: the committed ones, or, for a
// version that has none, generated ones that rest on the checksum database
// alone.
func (c compiler) lock(ctx context.Context, b build, log progress.Log) (lockPair, error) {
	if b.Module == "" { // our own source, and nothing but the standard library
		return lockPair{Mod: "module kbuild.dev/build/" + b.kind() + "\n\ngo 1.25\n"}, nil
	}
	if pair, ok := b.committed(); ok {
		return pair, nil
	}
	pins := []any{b.Module, b.Version, b.Require, b.Replace, b.Staging, b.packages(), b.Files}
	dir, err := c.store.entry(ctx, "lock", key(pins...), log, func(ctx context.Context, dir string) error {
		log("%s has no committed lock: pinning its modules by the checksum database", b.Name)
		pair, err := c.pin(ctx, b)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "go.mod"), []byte(pair.Mod), 0o644); err != nil {
			return err
		}
		return writeFile(filepath.Join(dir, "go.sum"), []byte(pair.Sum), 0o644)
	})
	if err != nil {
		return lockPair{}, err
	}
	mod, errMod := os.ReadFile(filepath.Join(dir, "go.mod"))
	sum, errSum := os.ReadFile(filepath.Join(dir, "go.sum"))
	if errMod != nil || errSum != nil {
		return lockPair{}, fmt.Errorf("cannot read the lock in %s", dir)
	}
	return lockPair{string(mod), string(sum)}, nil
}

// pin works out the lock of a build from its upstream module's go.mod.
func (c compiler) pin(ctx context.Context, b build) (lockPair, error) {
	m, err := download(ctx, b.Module, b.Version, "")
	if err != nil {
		return lockPair{}, err
	}
	mod, err := firstMod(ctx, b, m)
	if err != nil {
		return lockPair{}, err
	}
	dir, err := os.MkdirTemp("", "kbuild-pin-")
	if err != nil {
		return lockPair{}, err
	}
	defer os.RemoveAll(dir)
	if err := b.write(dir, lockPair{Mod: mod}, m.Dir); err != nil {
		return lockPair{}, err
	}
	list := func() error {
		if _, err := b.list(ctx, c.arch, dir, "GOFLAGS=-mod=mod"); err != nil {
			return fmt.Errorf("cannot pin the modules of %s: %w", b.Name, err)
		}
		return nil
	}
	if err := list(); err != nil {
		return lockPair{}, err
	}
	// Once more: with all requirements in go.mod, much less is needed of what
	// the first time left in go.sum.
	if err := os.Truncate(filepath.Join(dir, "go.sum"), 0); err != nil {
		return lockPair{}, err
	}
	if err := list(); err != nil {
		return lockPair{}, err
	}
	if b.OpenAPI > 0 { // stagingModules wants the sums of all go.mod files
		if _, err := runCommand(ctx, dir, goEnv(c.arch, "GOFLAGS=-mod=mod"), "go", "list", "-m", "all"); err != nil {
			return lockPair{}, fmt.Errorf("cannot pin the modules of %s: %w", b.Name, err)
		}
	}
	newMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return lockPair{}, err
	}
	newSum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return lockPair{}, err
	}
	lines := slices.Collect(strings.Lines(string(newSum)))
	if b.linked() { // go.sum leaves out what a directory replaces
		lines = append(lines, fmt.Sprintf("%s %s %s\n", m.Path, m.Version, m.Sum))
	}
	slices.Sort(lines)
	return lockPair{string(newMod), strings.Join(lines, "")}, nil
}

// list has the go command find all packages of the build module in dir.
func (b build) list(ctx context.Context, arch, dir string, env ...string) ([]byte, error) {
	args := append([]string{"go", "list", "-deps", "-f", "{{.ImportPath}}"}, b.Flags...)
	if b.linked() {
		args = append(args, "-overlay="+filepath.Join(dir, "overlay.json"))
	}
	if b.OpenAPI > 0 { // what it imports is imported elsewhere, too
		if err := os.WriteFile(filepath.Join(dir, "openapi.go"), []byte("package openapi\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return runCommand(ctx, dir, goEnv(arch, env...), append(args, b.packages()...)...)
}

// firstMod is the go.mod that a lock starts from: the go version of the
// upstream module, and its staging modules as they were published.
func firstMod(ctx context.Context, b build, m module) (string, error) {
	out, err := runCommand(ctx, os.TempDir(), goEnv("amd64"), "go", "mod", "edit", "-json", m.GoMod)
	if err != nil {
		return "", fmt.Errorf("cannot read the go.mod of %s@%s: %w", b.Module, b.Version, err)
	}
	var up struct {
		Go      string
		Replace []struct {
			Old, New struct{ Path, Version string }
		}
	}
	if err := json.Unmarshal(out, &up); err != nil {
		return "", fmt.Errorf("cannot read the go.mod of %s@%s: %w", b.Module, b.Version, err)
	}
	if up.Go == "" {
		up.Go = "1.12"
	}
	mod := fmt.Sprintf("module kbuild.dev/build/%s\n\ngo %s\n\nrequire %s %s\n", b.kind(), up.Go, b.Module, b.Version)
	for _, r := range b.Require {
		mod += "require " + r + "\n"
	}
	for _, r := range up.Replace {
		own := slices.ContainsFunc(b.Replace, func(s string) bool { return strings.HasPrefix(s, r.Old.Path+" =>") })
		if b.Staging != "" && !own && strings.HasPrefix(r.New.Path, "./staging/") {
			mod += fmt.Sprintf("replace %s => %s %s\n", r.Old.Path, r.Old.Path, b.Staging)
		}
	}
	for _, r := range b.Replace {
		mod += "replace " + r + "\n"
	}
	if b.linked() {
		mod += fmt.Sprintf("replace %s => ./link\n", b.Module)
	}
	return mod, nil
}

// write lays out the build module in dir; upstream is the module's place in
// the module cache.
func (b build) write(dir string, l lockPair, upstream string) error {
	files := maps.Clone(b.Files)
	if files == nil {
		files = map[string]string{}
	}
	files["go.mod"], files["go.sum"] = l.Mod, l.Sum
	if b.linked() {
		if err := os.Symlink(upstream, filepath.Join(dir, "link")); err != nil {
			return err
		}
		replace := map[string]string{}
		for path, text := range b.Overlay {
			at := filepath.Join("overlay", path)
			if text == "" {
				at = "" // the file is as if it were not there
			} else {
				files[at] = text
				at = filepath.Join(dir, at)
			}
			replace[filepath.Join(dir, "link", path)] = at
		}
		if b.OpenAPI > 0 {
			replace[filepath.Join(dir, "link", openAPIFile)] = filepath.Join(dir, "openapi.go")
		}
		text, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			return err
		}
		files["overlay.json"] = string(text)
	}
	for path, text := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// packages are the packages that the lock covers, sorted, each once.
func (b build) packages() []string {
	p := slices.AppendSeq(slices.Clone(b.Also), maps.Values(b.Programs))
	if b.OpenAPI > 0 {
		p = append(p, openAPIGen)
	}
	slices.Sort(p)
	return slices.Compact(p)
}

// compile makes the programs of b and returns the directory that holds them.
func (c compiler) compile(ctx context.Context, b build, log progress.Log) (string, error) {
	pair, err := c.lock(ctx, b, log)
	if err != nil {
		return "", err
	}
	return c.store.entry(ctx, "bin", key(b, pair.pins(b), c.arch, toolchain()), log, func(ctx context.Context, out string) error {
		return c.fill(ctx, b, pair, out, log)
	})
}

func (c compiler) fill(ctx context.Context, b build, pair lockPair, out string, log progress.Log) error {
	m := module{}
	if b.Module != "" {
		var err error
		if m, err = download(ctx, b.Module, b.Version, findSum(pair.Sum, b.Module, b.Version)); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp("", "kbuild-compile-")
	if err != nil {
		return fmt.Errorf("cannot compile %s: %w", b.Name, err)
	}
	defer os.RemoveAll(work)
	if err := b.write(work, pair, m.Dir); err != nil {
		return fmt.Errorf("cannot lay out the build module of %s: %w", b.Name, err)
	}
	if b.OpenAPI > 0 {
		if err := c.openAPI(ctx, b, work, pair, log); err != nil {
			return err
		}
	}
	transcript, err := c.store.transcript(b.Name)
	if err != nil {
		return err
	}
	defer transcript.Close()
	for _, name := range slices.Sorted(maps.Keys(b.Programs)) {
		if err := c.goBuild(ctx, b, name, work, out, log, transcript); err != nil {
			return fmt.Errorf("cannot compile %s: %w", name, err)
		}
	}
	return nil
}

// goBuild compiles one of b's programs into out.
func (c compiler) goBuild(ctx context.Context, b build, name, work, out string, log progress.Log, transcript *os.File) (err error) {
	task := log.Task("compiling " + filepath.Base(name) + " (" + b.Name + ")")
	defer func() { task.End(err) }()
	// With -v, the go command prints a line for each package that it compiles.
	packages := &lineCounter{each: func(n int) { task.Far("%d packages", n) }}
	args := append(b.goBuild(work), "-v", "-o", filepath.Join(out, name), b.Programs[name])
	_, err = command{dir: work, env: goEnv(c.arch), transcript: transcript, stderr: packages}.run(ctx, args...)
	return err
}

// goBuild is the go build command up to -o.
func (b build) goBuild(work string) []string {
	ld := "-s -w -buildid="
	for _, name := range slices.Sorted(maps.Keys(b.Set)) {
		ld += " -X " + name + "=" + b.Set[name]
	}
	args := []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=" + ld}
	if b.linked() {
		args = append(args, "-overlay="+filepath.Join(work, "overlay.json"))
	}
	return append(args, b.Flags...)
}
