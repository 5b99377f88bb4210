package disk_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
)

// extensionRoot makes a small root of an extension, in one order or the other.
func extensionRoot(t *testing.T, dir string, backwards bool) string {
	t.Helper()
	names := []string{"usr/bin/program", "usr/lib/extension-release.d/extension-release.test", "usr/lib/test/data"}
	if backwards {
		names[0], names[2] = names[2], names[0]
	}
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Repeat(name+"\n", 20000)), 0o644); err != nil {
			t.Fatal(err)
		}
		for d := filepath.Dir(file); len(d) >= len(dir); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestExtension makes an extension twice, in other circumstances, and lets
// programs that we did not write look at it.
func TestExtension(t *testing.T) {
	_, tools := trees(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "other", "second one")
	for _, d := range []string{first, second} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	input := func(root, out string) disk.ExtensionInput {
		return disk.ExtensionInput{
			Layout: disk.Layout{Seed: "test", Version: "v1.19.12-test"}, Root: root, Tools: tools,
			Epoch: time.Unix(1735689600, 0), Out: out, Name: "ext", Log: t.Logf,
		}
	}
	in := input(extensionRoot(t, filepath.Join(first, "root"), false), first)
	out, err := disk.Extension(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) (string, error) {
		b, err := tools.Command(t.Context(), []base.Bind{{Name: "o", Dir: first, Writable: true}}, nil, name, args...).CombinedOutput()
		return string(b), err
	}
	must := func(name string, args ...string) string {
		t.Helper()
		o, err := run(name, args...)
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, o)
		}
		return o
	}
	must("sfdisk", "--verify", "/tmp/o/ext.raw")
	var table struct {
		PartitionTable struct {
			Partitions []struct {
				Start, Size      uint64
				Type, UUID, Name string
			}
		}
	}
	if err := json.Unmarshal([]byte(must("sfdisk", "--json", "/tmp/o/ext.raw")), &table); err != nil {
		t.Fatal(err)
	}
	parts := table.PartitionTable.Partitions
	if len(parts) != len(out.Partitions) {
		t.Fatalf("%d partitions, planned %d", len(parts), len(out.Partitions))
	}
	raw, err := os.ReadFile(out.Image)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		want := out.Partitions[i]
		if !strings.EqualFold(p.Type, want.Type) || !strings.EqualFold(p.UUID, want.UUID) || p.Name != want.Label || p.Size*512 != want.Size {
			t.Errorf("partition %d is %+v, planned %+v", i+1, p, want)
		}
		if err := os.WriteFile(filepath.Join(first, []string{"erofs", "verity"}[i]), raw[p.Start*512:(p.Start+p.Size)*512], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if hash, err := os.ReadFile(out.RootHashFile); err != nil || string(hash) != out.RootHash {
		t.Errorf("the file says root hash %q, %v; want %s", hash, err, out.RootHash)
	}
	must("fsck.erofs", "/tmp/o/erofs")
	must("veritysetup", "verify", "/tmp/o/erofs", "/tmp/o/verity", out.RootHash)
	if o, err := run("veritysetup", "verify", "/tmp/o/erofs", "/tmp/o/verity", strings.Repeat("0", 64)); err == nil {
		t.Errorf("another root hash passes: %s", o)
	}

	defer syscall.Umask(syscall.Umask(0o077))
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "tr_TR.UTF-8")
	again, err := disk.Extension(t.Context(), input(extensionRoot(t, filepath.Join(second, "root"), true), second))
	if err != nil {
		t.Fatal(err)
	}
	if sum(t, out.Image) != sum(t, again.Image) || out.RootHash != again.RootHash {
		t.Error("two images of the same root differ")
	}
	if _, err := disk.Extension(t.Context(), in); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("want an error about the existing output, got %v", err)
	}
}
