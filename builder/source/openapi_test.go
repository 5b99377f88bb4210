package source

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A module that nobody has downloaded yet has its definitions generated too.
// The build module here replaces a module as Kubernetes' does; its module
// cache is empty, and the proxy serves what this test wrote.
func TestOpenAPIInputsDownloads(t *testing.T) {
	const asks, version = "k8s.io/asks", "v0.1.0"
	t.Setenv("GOPROXY", moduleProxy(t, asks, version, map[string]string{
		"core/v1/doc.go": "// +k8s:openapi-gen=true\n\npackage v1\n",
		"other/other.go": "package other\n",
	}))
	t.Setenv("GOSUMDB", "off") // no database knows a module that a test made
	t.Setenv("GOPRIVATE", "")
	empty := t.TempDir()
	t.Setenv("GOMODCACHE", empty)
	t.Cleanup(func() { // the go command makes directories that nobody can write to
		filepath.WalkDir(empty, func(p string, d fs.DirEntry, _ error) error {
			if d.IsDir() {
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})

	work := t.TempDir()
	mod := fmt.Sprintf("module kbuild.dev/build/test\n\ngo 1.26.0\n\nrequire %s %s\n\nreplace %[1]s => %[1]s %[2]s\n", asks, version)
	if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(mod), 0o644); err != nil {
		t.Fatal(err)
	}
	// Another module cache makes the go.sum that a lock would bring.
	sums := filepath.Join(work, "sums")
	env := append(goEnv(hostArch, "GOFLAGS=-mod=mod"), "GOMODCACHE="+sums, "GOFLAGS=-mod=mod -modcacherw")
	if _, err := runCommand(t.Context(), work, env, "go", "mod", "download", asks); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(sums); err != nil {
		t.Fatal(err)
	}

	inputs, err := openAPIInputs(t.Context(), work)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{asks + "/core/v1"}; !slices.Equal(inputs, want) {
		t.Errorf("the inputs are %q, want %q", inputs, want)
	}
}

// moduleProxy is the URL of a module proxy that serves one version of one
// module with files, as `go help goproxy` lays it out.
func moduleProxy(t *testing.T, module, version string, files map[string]string) string {
	t.Helper()
	mod := "module " + module + "\n\ngo 1.26.0\n"
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	add := func(name, text string) {
		w, err := z.Create(module + "@" + version + "/" + name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("go.mod", mod)
	for name, text := range files {
		add(name, text)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, module, "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"list":            []byte(version + "\n"),
		version + ".info": fmt.Appendf(nil, `{"Version":%q,"Time":"2020-01-01T00:00:00Z"}`, version),
		version + ".mod":  []byte(mod),
		version + ".zip":  archive.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "file://" + root
}
