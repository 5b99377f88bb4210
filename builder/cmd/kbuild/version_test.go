package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

func TestVersion(t *testing.T) {
	text := mustKbuild(t, "version")
	for _, want := range []string{"kbuild      devel\n", "Go          " + runtime.Version() + "\n", "v1.19.0 to v1.37.2 (kbuild versions lists them)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if flag := mustKbuild(t, "--version"); flag != text {
		t.Errorf("--version prints\n%s, version\n%s", flag, text)
	}
	if short := mustKbuild(t, "version", "-o", "short"); short != "devel\n" {
		t.Errorf("-o short: %q", short)
	}
	for format, read := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": func(b []byte, v any) error { return yaml.Unmarshal(b, v) }} {
		var v version
		if err := read([]byte(mustKbuild(t, "version", "-o", format)), &v); err != nil || v.Kbuild != "devel" || v.Go != runtime.Version() ||
			!slices.Contains(v.Kubernetes, images.Range{Oldest: "v1.19.0", Newest: "v1.19.16", Ends: "2021-10"}) {
			t.Errorf("-o %s: %+v, %v", format, v, err)
		}
	}
}

// TestVersionFromMakefile: what the Makefile gives the linker is the version.
func TestVersionFromMakefile(t *testing.T) {
	b, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`-X (\S+)=\$\(KBUILD_VERSION\)`).FindSubmatch(b)
	if flag == nil {
		t.Fatal("the Makefile sets no version")
	}
	program := filepath.Join(t.TempDir(), "kbuild")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w -X "+string(flag[1])+"=v9.8.7", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), program, "version", "-o", "short").CombinedOutput(); err != nil || string(out) != "v9.8.7\n" {
		t.Errorf("%q, %v", out, err)
	}
}
