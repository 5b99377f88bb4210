package disk

import (
	"encoding/json"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/templates"
	"github.com/kbuild/kbuild/test-vm/golden"
)

func TestPlan(t *testing.T) {
	l := Layout{Seed: "a seed", Version: "v1.19.12-1"}
	plan, err := SetRootHash(Plan(l), "c73f50ee22695732ba960ca089d5c552b130b6d675ae4a404fc3de81a4b35c3d")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(map[string]any{"disk": l.DiskGUID(), "planned": Plan(l), "withRoot": plan}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/plan.json", string(b)+"\n")
	if other := Plan(Layout{Seed: "another", Version: l.Version}); other[0].UUID == plan[0].UUID {
		t.Error("two seeds give one GUID")
	}
}

func TestSetRootHashRefuses(t *testing.T) {
	for _, hash := range []string{"", "abc", strings.Repeat("0", 62), strings.Repeat("g", 64)} {
		if _, err := SetRootHash(Plan(Layout{}), hash); err == nil {
			t.Errorf("%q is taken for a root hash", hash)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"v1.19.12": true, "v1.37.2-20250101.abcdef12": true, strings.Repeat("1", 28): true,
		"": false, strings.Repeat("1", 29): false, "v1 2": false, "v1/2": false, "v1_2": false, "v1+2": false, "é": false,
	} {
		if err := CheckVersion(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// The node's systemd-repart must agree with the table that the image ships,
// or it would refuse the disk at the first boot.
func TestNodeDefinitionsAgree(t *testing.T) {
	plan := Plan(Layout{Version: "v1"})
	root := templates.Root()
	files, err := fs.Glob(root, "usr/lib/repart.d/*.conf")
	if err != nil || len(files) != len(plan) {
		t.Fatalf("%d definitions for %d partitions: %v", len(files), len(plan), err)
	}
	types := map[string]string{"esp": typeESP, "root-x86-64": typeRoot, "root-x86-64-verity": typeVerity, "var": typeVar}
	for i, file := range files { // sorted by name, as systemd-repart reads them
		b, err := fs.ReadFile(root, file)
		if err != nil {
			t.Fatal(err)
		}
		is := map[string]string{}
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
				is[name] = value
			}
		}
		p := plan[i]
		if types[is["Type"]] != p.Type {
			t.Errorf("%s: type %s, planned %s", file, is["Type"], p.Type)
		}
		if got := size(t, is["SizeMinBytes"]); got != p.Size {
			t.Errorf("%s: at least %d bytes, planned %d", file, got, p.Size)
		}
		if max, limited := is["SizeMaxBytes"]; limited == p.Grows || limited && size(t, max) != p.Size {
			t.Errorf("%s: at most %q bytes, planned %d, growing %v", file, max, p.Size, p.Grows)
		}
		if p.MadeBy == "first boot" && (is["Label"] != p.Label || is["Format"] != p.Format) {
			t.Errorf("%s: label %q, format %q, planned %q, %q", file, is["Label"], is["Format"], p.Label, p.Format)
		}
	}
}

func size(t *testing.T, s string) uint64 {
	t.Helper()
	unit := map[byte]uint64{'M': 1 << 20, 'G': 1 << 30}[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 64)
	if err != nil || unit == 0 {
		t.Fatalf("size %q", s)
	}
	return n * unit
}

// VeritySize must hold the hashes of a full slot: 128 hashes of 32 bytes in a
// block of 4096, level upon level, and the superblock.
func TestVerityFits(t *testing.T) {
	blocks, need := uint64(SlotSize/4096), uint64(1)
	for blocks > 1 {
		blocks = (blocks + 127) / 128
		need += blocks
	}
	if need*4096 > VeritySize {
		t.Errorf("a full slot needs %d bytes of hashes, there is room for %d", need*4096, VeritySize)
	}
}

func TestCompareTable(t *testing.T) {
	plan, err := SetRootHash(Plan(Layout{Seed: "s", Version: "v"}), strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	table := func(change func([]map[string]any) []map[string]any) string {
		var rows []map[string]any
		for _, p := range plan[:3] {
			rows = append(rows, map[string]any{"label": p.Label, "uuid": p.UUID, "raw_size": p.Size})
		}
		b, err := json.Marshal(change(rows))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := compareTable(plan, table(func(r []map[string]any) []map[string]any { return r })); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func([]map[string]any) []map[string]any{
		"size":    func(r []map[string]any) []map[string]any { r[1]["raw_size"] = 4096; return r },
		"uuid":    func(r []map[string]any) []map[string]any { r[0]["uuid"] = ""; return r },
		"missing": func(r []map[string]any) []map[string]any { return r[:2] },
		"more":    func(r []map[string]any) []map[string]any { return append(r, r[0]) },
	} {
		if compareTable(plan, table(change)) == nil {
			t.Errorf("a table with another %s is taken", name)
		}
	}
}

func TestOSRelease(t *testing.T) {
	const base = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nIMAGE_VERSION=old\nVERSION_ID=\"13\""
	want := "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"kbuild node v1.19.12\"\nIMAGE_ID=kbuild\nIMAGE_VERSION=v1.19.12\n"
	got := SetOSRelease(base, OSRelease("v1.19.12"))
	if got != want {
		t.Errorf("got %q", got)
	}
	if again := SetOSRelease(got, OSRelease("v1.19.12")); again != want {
		t.Errorf("the second time: %q", again)
	}
}
