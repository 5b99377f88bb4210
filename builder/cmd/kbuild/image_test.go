package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// kbuild runs the command line and returns its exit code and output.
func kbuild(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Execute(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// TestPlanGolden holds the whole Plan: whoever changes what an image is made
// of sees it in the diff. make golden writes it.
func TestPlanGolden(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	t.Setenv("KBUILD_CACHE", t.TempDir())
	for file, flags := range map[string][]string{
		"plan-v1.19.12.json":          nil,
		"plan-v1.19.12-ignition.json": {"--format", "ignition", "--sysext-url", "https://images.example.com/v1.19.12/"},
	} {
		args := append([]string{"plan", "--version", "v1.19.12"}, flags...)
		code, first, stderr := kbuild(t, args...)
		if code != cli.ExitOK {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		_, again, _ := kbuild(t, args...)
		if first != again {
			t.Error("the same flags gave other bytes")
		}
		golden.Compare(t, filepath.Join("testdata", file), first)
	}
	if entries, err := os.ReadDir(os.Getenv("KBUILD_CACHE")); err != nil || len(entries) != 0 {
		t.Errorf("planning left %v in the cache, %v", entries, err)
	}
}

func TestPlanFollowsItsFlags(t *testing.T) {
	dir := t.TempDir()
	manifest := filepath.Join(dir, "app.yaml")
	if err := os.WriteFile(manifest, []byte("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: registry.example/app:1}]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := kbuild(t, "plan", "--version", "v1.19.12", "--cni", "none", "--manifest", manifest, "--include-image", "registry.example/more:2",
		"--include-image", "busybox:1.36", "--cmdline", "console=ttyS1,115200n8", "--format", "raw,qcow2")
	if code != cli.ExitOK {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"registry.example/app:1", "registry.example/more:2", "disk.qcow2", "/usr/share/kbuild/manifests/app.yaml",
		`"docker.io/library/busybox:1.36"`, "console=ttyS1,115200n8"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan misses %s", want)
		}
	}
	if strings.Contains(out, "flanneld") {
		t.Error("--cni none still brings flanneld")
	}
	var p struct{ Images []string }
	if err := json.Unmarshal([]byte(out), &p); err != nil || slices.Contains(p.Images, "busybox:1.36") {
		t.Errorf("the plan has an image by two names: %q, %v", p.Images, err)
	}
}

// TestPlanByContent: where an input lies does not make another image; what is in
// it does.
func TestPlanByContent(t *testing.T) {
	seed := func(text string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "app.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out, stderr := kbuild(t, "plan", "--version", "v1.19.12", "--manifest", file)
		if code != cli.ExitOK {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		var p struct{ Partitions []struct{ UUID string } }
		if err := json.Unmarshal([]byte(out), &p); err != nil || len(p.Partitions) == 0 {
			t.Fatalf("%d partitions, %v", len(p.Partitions), err)
		}
		return p.Partitions[0].UUID
	}
	const one, two = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"
	if a, b := seed(one), seed(one); a != b {
		t.Errorf("the same manifest from two places: %s and %s", a, b)
	}
	if a, b := seed(one), seed(two); a == b {
		t.Errorf("two manifests: both %s", a)
	}
}

// TestPlanOfBoth: an image may be a disk and a system extension at once; each
// is planned as it is alone, and keeps its identifiers.
func TestPlanOfBoth(t *testing.T) {
	type plan struct {
		Tree, Sysext []any
		Partitions   []struct{ Label, UUID string }
		Outputs      []string
	}
	get := func(args ...string) (p plan) {
		t.Helper()
		code, out, stderr := kbuild(t, append([]string{"plan", "--version", "v1.19.12"}, args...)...)
		if code != cli.ExitOK {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	disk, ext, both := get(), get("--format", "ignition"), get("--format", "raw,ignition")
	if len(disk.Tree) == 0 || len(disk.Sysext) != 0 || len(ext.Tree) != 0 || len(ext.Partitions) != 0 || len(ext.Sysext) == 0 {
		t.Error("a plan has what its format does not ask for, or lacks it")
	}
	if d := cmp.Diff(plan{disk.Tree, ext.Sysext, disk.Partitions, nil}, plan{both.Tree, both.Sysext, both.Partitions, nil}); d != "" {
		t.Errorf("both are not what each is (-alone +both):\n%s", d)
	}
	want := slices.Compact(slices.Sorted(slices.Values(slices.Concat(disk.Outputs, ext.Outputs))))
	if !slices.Equal(both.Outputs, want) {
		t.Errorf("outputs %q, want %q", both.Outputs, want)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	badConfig := write("config.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nnetworking:\n  podSubnett: 10.0.0.0/16\n")
	badManifest := write("bad.yaml", "a: [")
	badButane := write("site.bu", "variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n    - path: relative\n")
	noKind := write("nokind.yaml", "a: 1\n")
	text := write("notes.txt", "")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no version":        {[]string{"plan"}, []string{"--version"}},
		"unknown minor":     {[]string{"plan", "--version", "v1.3.0"}, []string{"v1.3.0", "v1.19"}},
		"no version at all": {[]string{"plan", "--version", "newest"}, []string{"newest"}},
		"source":            {[]string{"plan", "--version", "v1.19.12", "--source", "cloud"}, []string{"cloud", "modules"}},
		"format":            {[]string{"plan", "--version", "v1.19.12", "--format", "vhd"}, []string{"vhd", "qcow2"}},
		"cni":               {[]string{"plan", "--version", "v1.19.12", "--cni", "own"}, []string{"own", "none"}},
		"arch":              {[]string{"plan", "--version", "v1.19.12", "--arch", "s390x"}, []string{"s390x"}},
		"config":            {[]string{"plan", "--version", "v1.19.12", "--config", badConfig}, []string{"config.yaml:4:", "podSubnett"}},
		"missing config":    {[]string{"plan", "--version", "v1.19.12", "--config", filepath.Join(dir, "none.yaml")}, []string{"none.yaml"}},
		"manifest":          {[]string{"plan", "--version", "v1.19.12", "--manifest", badManifest}, []string{"bad.yaml"}},
		"no object":         {[]string{"plan", "--version", "v1.19.12", "--manifest", noKind}, []string{"nokind.yaml", "kind"}},
		"no manifest":       {[]string{"plan", "--version", "v1.19.12", "--manifest", text}, []string{"notes.txt", ".yaml"}},
		"sysext url":        {[]string{"plan", "--version", "v1.19.12", "--format", "ignition", "--sysext-url", "sysext.raw"}, []string{"sysext.raw", "https://"}},
		"url for a disk":    {[]string{"plan", "--version", "v1.19.12", "--sysext-url", "https://example.com/"}, []string{"--sysext-url", "--format ignition"}},
		"butane":            {[]string{"plan", "--version", "v1.19.12", "--format", "ignition", "--butane", badButane}, []string{"site.bu", "line 5 col 13", "not absolute"}},
		"no butane":         {[]string{"plan", "--version", "v1.19.12", "--format", "ignition", "--butane", filepath.Join(dir, "none.bu")}, []string{"none.bu"}},
		"butane for a disk": {[]string{"plan", "--version", "v1.19.12", "--butane", badButane}, []string{"--butane", "--format ignition"}},
		"argument":          {[]string{"plan", "v1.19.12"}, []string{"v1.19.12"}},
		"tree":              {[]string{"tree", "mac"}, []string{"mac", "tools"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := kbuild(t, c.args...)
			if code != cli.ExitUsage || out != "" {
				t.Fatalf("exit %d, output %q, want exit %d and none", code, out, cli.ExitUsage)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("error %q does not name %q", stderr, w)
				}
			}
		})
	}
}

func TestImageRefusesBeforeItWorks(t *testing.T) {
	out := t.TempDir()
	t.Setenv("KBUILD_CACHE", t.TempDir())
	code, _, stderr := kbuild(t, "image", "--version", "v1.19.12", "--out", out, "--firstboot", filepath.Join(out, "none"))
	if code == cli.ExitOK || !strings.Contains(stderr, "make build") {
		t.Errorf("exit %d: %q: want one that says how to build kbuild-firstboot", code, stderr)
	}
	firstboot := filepath.Join(t.TempDir(), "fb")
	if err := os.WriteFile(firstboot, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(t.TempDir(), "lock.json")
	if err := os.WriteFile(lock, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = kbuild(t, "image", "--version", "v1.19.12", "--out", out, "--firstboot", firstboot, "--lock", lock)
	if code == cli.ExitOK || !strings.Contains(stderr, "manifest.json") {
		t.Errorf("exit %d: %q: want one that says what a lock is", code, stderr)
	}
	if entries, err := os.ReadDir(out); err != nil || len(entries) != 0 {
		t.Errorf("a refused build left %v, %v", entries, err)
	}
}

// TestImageInterrupted: whatever a build comes to after Ctrl-C, a copy that was
// killed for instance, is the interruption's doing and not a failure to read
// about.
func TestImageInterrupted(t *testing.T) {
	t.Setenv("KBUILD_CACHE", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	out := filepath.Join(t.TempDir(), "out")
	code := Execute(ctx, []string{"image", "--version", "v1.19.12", "--out", out, "--firstboot", "none"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitInterrupted || stderr.String() != "kbuild: interrupted\n" {
		t.Errorf("exit %d: %q, want exit %d and one word", code, stderr.String(), exitInterrupted)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("the output directory is there: %v", err)
	}
}
