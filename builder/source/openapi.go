package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/builder/progress"
)

// Kubernetes up to v1.20 left pkg/generated/openapi/zz_generated.openapi.go
// out of its tree and made it while building, with openapi-gen over every
// package that asks for it (build/root/Makefile.generated_files, "OpenAPI
// generation").
const (
	openAPIPackage = "k8s.io/kubernetes/pkg/generated/openapi"
	openAPIFile    = "pkg/generated/openapi/zz_generated.openapi.go"
	openAPIGen     = "k8s.io/kube-openapi/cmd/openapi-gen"
	// openAPIRevision is part of the cache's keys: what an older recipe made,
	// and what was compiled with it, is made again. Revision 1 left out modules
	// that were not downloaded yet.
	openAPIRevision = 2
)

// openAPI puts openapi.go into the build module in work.
func (c compiler) openAPI(ctx context.Context, b build, work string, pair lockPair, log progress.Log) error {
	dir, err := c.store.entry(ctx, "openapi", key(b.Version, b.OpenAPI, pair.pins(b), toolchain()), log, func(ctx context.Context, dir string) (err error) {
		task := log.Task("generating the OpenAPI definitions (" + b.Name + ")")
		defer func() { task.End(err) }()
		gen := filepath.Join(work, "openapi-gen")
		if _, err := runCommand(ctx, work, goEnv(hostArch), "go", "build", "-trimpath", "-buildvcs=false", "-o", gen, openAPIGen); err != nil {
			return fmt.Errorf("cannot compile openapi-gen: %w", err)
		}
		inputs, err := openAPIInputs(ctx, work)
		if err != nil {
			return fmt.Errorf("cannot find the packages with OpenAPI definitions: %w", err)
		}
		if err := os.WriteFile(filepath.Join(work, "header"), nil, 0o644); err != nil {
			return err
		}
		if _, err := runCommand(ctx, work, goEnv(hostArch), gen, "--logtostderr", "-i", strings.Join(inputs, ","), "-p", openAPIPackage,
			"-O", "zz_generated.openapi", "-h", "header", "-r", "report", "-o", "generated"); err != nil {
			return fmt.Errorf("cannot generate the OpenAPI definitions: %w", err)
		}
		return os.Rename(filepath.Join(work, "generated/k8s.io/kubernetes", openAPIFile), filepath.Join(dir, "openapi.go"))
	})
	if err != nil {
		return err
	}
	return os.Symlink(filepath.Join(dir, "openapi.go"), filepath.Join(work, "openapi.go"))
}

// openAPIInputs are the packages with the marker, in Kubernetes itself and in
// its staging modules (those that are only examples left out). All of these
// are downloaded first: the go command knows no directory of a module that is
// not in the module cache, and definitions would be missing silently.
func openAPIInputs(ctx context.Context, work string) ([]string, error) {
	modules, err := stagingModules(ctx, work)
	if err != nil {
		return nil, err
	}
	var absent []string
	for _, m := range modules {
		if m.Dir == "" {
			absent = append(absent, m.Path)
		}
	}
	if absent != nil {
		if _, err := runCommand(ctx, work, goEnv(hostArch), append([]string{"go", "mod", "download"}, absent...)...); err != nil {
			return nil, err
		}
		if modules, err = stagingModules(ctx, work); err != nil {
			return nil, err
		}
	}
	var inputs []string
	for _, m := range modules {
		if m.Dir == "" {
			return nil, fmt.Errorf("module %s is not in the module cache although it was downloaded", m.Path)
		}
		dir, err := filepath.EvalSymlinks(m.Dir)
		if err != nil {
			return nil, err
		}
		found, err := marked(dir)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			inputs = append(inputs, filepath.Join(m.Path, p))
		}
	}
	slices.Sort(inputs)
	return inputs, nil
}

// stagingModules are Kubernetes and its staging modules, as the go command
// lists them in the build module; Dir is empty where one is not downloaded.
func stagingModules(ctx context.Context, work string) ([]module, error) {
	out, err := runCommand(ctx, work, goEnv(hostArch), "go", "list", "-m", "-json", "all")
	if err != nil {
		return nil, err
	}
	var list []module
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct {
			module
			Replace *module
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		if m.Replace != nil && strings.HasPrefix(m.Path, "k8s.io/") &&
			m.Path != "k8s.io/code-generator" && !strings.HasPrefix(m.Path, "k8s.io/sample-") {
			list = append(list, m.module)
		}
	}
}

// marked are the directories below dir with a Go file that asks for OpenAPI
// definitions.
func marked(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "vendor" || d.Name() == "_examples") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte("+k8s:openapi-gen=")) || !bytes.Contains(text, []byte("// +k8s:")) {
			return nil
		}
		rel, err := filepath.Rel(dir, filepath.Dir(path))
		if err == nil && !slices.Contains(found, rel) {
			found = append(found, rel)
		}
		return err
	})
	return found, err
}
