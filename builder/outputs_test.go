package builder

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMoveOutputs: an image replaces an earlier one of the same version with
// all its files, whose names tell another root hash; strangers' files stay.
func TestMoveOutputs(t *testing.T) {
	outputs := outputs(Spec{Version: "v1.20.15", Formats: []string{"raw"}}, anyHash)
	fill := func(dir, hash string) {
		t.Helper()
		for _, o := range outputs {
			name := filepath.Join(dir, strings.Replace(o, anyHash, hash, 1))
			if err := os.WriteFile(name, []byte(hash), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "out[1]*")
	if err := checkOut(to, outputs, false); err != nil {
		t.Errorf("no directory yet: %v", err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	strangers := []string{"kbuild_v1.19.12_aaaaaaaaaaaaaaaa.root.erofs", "README"}
	for _, name := range strangers {
		if err := os.WriteFile(filepath.Join(to, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkOut(to, outputs, false); err != nil {
		t.Errorf("none of the outputs is there: %v", err)
	}
	for _, hash := range []string{"aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"} {
		fill(from, hash)
		if err := moveOutputs(from, to, outputs); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(strangers)
		for _, o := range outputs {
			want = append(want, strings.Replace(o, anyHash, hash, 1))
		}
		entries, err := os.ReadDir(to)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if err := checkOut(to, outputs[slices.Index(outputs, "kbuild_v1.20.15_*.uki.efi"):][:1], false); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("an output is there: %v", err)
	}
	if err := checkOut(to, outputs, true); err != nil {
		t.Errorf("with --force: %v", err)
	}
}
