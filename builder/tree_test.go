package builder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTreeRefusesATakenPathAndNamesBothOwners(t *testing.T) {
	tr := newTree(map[string][]byte{})
	if err := tr.placeBytes("/etc/x", "one", 0o644, []byte("1")); err != nil {
		t.Fatal(err)
	}
	err := tr.placeBytes("etc//x", "two", 0o644, []byte("2"))
	if err == nil || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "two") {
		t.Errorf("error %v, want both owners", err)
	}
}

func TestTreeWritesOverTheBase(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"usr/lib", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/hosts"), []byte("base"), 0o644); err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	tr := newTree(content)
	if err := tr.overlay("files", fstest.MapFS{
		"usr/bin/tool":  {Data: []byte("binary")},
		"etc/conf":      {Data: []byte("text")},
		"etc/script":    {Data: []byte("#!/bin/sh\n")},
		"lib/systemd/u": {Data: []byte("unit")},
	}); err != nil {
		t.Fatal(err)
	}
	if err := tr.place(link("/etc/hosts", "layout", "../run/hosts")); err != nil {
		t.Fatal(err)
	}
	if err := writeTree(root, tr.list(), contents{bytes: content}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"usr/bin/tool": 0o755, "etc/conf": 0o644, "etc/script": 0o755, "usr/lib/systemd/u": 0o644} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, st.Mode(), mode)
		}
	}
	if l, err := os.Readlink(filepath.Join(root, "etc/hosts")); err != nil || l != "../run/hosts" {
		t.Errorf("etc/hosts → %q, %v", l, err)
	}
}

func TestTreeNeverWritesOutsideRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("../..", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if err := writeTree(root, []Entry{text("/out/file", "x", "x")}, contents{}); err == nil {
		t.Error("wrote through a link that leads out of the image")
	}
}

func TestManifestImages(t *testing.T) {
	refs, err := manifestImages("m.yaml", []byte(`
apiVersion: apps/v1
kind: DaemonSet
spec:
  template:
    spec:
      initContainers: [{name: i, image: "example/init:1"}]
      containers:
      - {name: c, image: "example/main:2"}
---
apiVersion: batch/v1beta1
kind: CronJob
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: "example/job:3"}]}}}}}
---
apiVersion: v1
kind: ConfigMap
data: {image: "not/an:image"}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(refs, " ")
	for _, want := range []string{"example/init:1", "example/main:2", "example/job:3"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q misses %s", got, want)
		}
	}
	if len(refs) != 3 {
		t.Errorf("found %v, want 3", refs)
	}
	if _, err := manifestImages("bad.yaml", []byte("a: [")); err == nil || !strings.Contains(err.Error(), "bad.yaml") {
		t.Errorf("error %v, want one that names the file", err)
	}
}
