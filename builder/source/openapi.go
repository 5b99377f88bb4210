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
)

// Kubernetes up to v1.20 left pkg/generated/openapi/zz_generated.openapi.go
// out of its tree and made it while building, with openapi-gen over every
// package that asks for it (build/root/Makefile.generated_files, "OpenAPI
// generation").
const (
	openAPIPackage = "k8s.io/kubernetes/pkg/generated/openapi"
	openAPIFile    = "pkg/generated/openapi/zz_generated.openapi.go"
	openAPIGen     = "k8s.io/kube-openapi/cmd/openapi-gen"
)

// openAPI puts openapi.go into the build module in work.
func (c compiler) openAPI(ctx context.Context, b build, work string, pair lockPair, log Progress) error {
	dir, err := c.store.entry(ctx, "openapi", key(b.Version, pair, toolchain()), log, func(ctx context.Context, dir string) error {
		done := timed(log, "generating the OpenAPI definitions ("+b.Name+")")
		defer done()
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
// its staging modules (those that are only examples left out).
func openAPIInputs(ctx context.Context, work string) ([]string, error) {
	out, err := runCommand(ctx, work, goEnv(hostArch), "go", "list", "-m", "-json", "all")
	if err != nil {
		return nil, err
	}
	var inputs []string
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct {
			Path, Dir string
			Replace   *struct{ Path, Dir string }
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if m.Replace == nil || m.Dir == "" || !strings.HasPrefix(m.Path, "k8s.io/") ||
			m.Path == "k8s.io/code-generator" || strings.HasPrefix(m.Path, "k8s.io/sample-") {
			continue
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
