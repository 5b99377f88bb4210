package images_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

func update(t testing.TB) images.Update {
	t.Helper()
	r, err := images.Lookup("v1.20.15")
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("ab", 32)
	part := func(what string) images.Part {
		return images.Part{Name: "kbuild_v1.20.15_abababababababab." + what, Size: 1, SHA256: hash}
	}
	return images.Update{Arch: "amd64", Release: r, RootHash: hash, TrialBoots: 3, Root: part("root.erofs"), Verity: part("root.verity"), UKI: part("uki.efi")}
}

// TestReadUpdate: what a disk would be written by is whole, or an error that
// says what is wrong.
func TestReadUpdate(t *testing.T) {
	for want, spoil := range map[string]func(*images.Update){
		"":                               func(*images.Update) {},
		`rootHash "ab" is not a SHA-256`: func(u *images.Update) { u.RootHash = "ab" },
		`of root.erofs has name "../x"`:  func(u *images.Update) { u.Root.Name = "../x" },
		"of root.verity has name":        func(u *images.Update) { u.Verity = images.Part{} },
		"of uki.efi has name \"kbuild_v1.20.15_abababababababab.uki.efi\", size -1": func(u *images.Update) { u.UKI.Size = -1 },
		// The file of another image.
		`of root.erofs has name "kbuild_v1.20.15_cdcdcdcdcdcdcdcd.root.erofs"`: func(u *images.Update) { u.Root.Name = strings.ReplaceAll(u.Root.Name, "ab", "cd") },
		"trialBoots is 0, want 1 to 9":                                         func(u *images.Update) { u.TrialBoots = 0 },
		"version":                                                              func(u *images.Update) { u.Release.Version = "latest" },
	} {
		u := update(t)
		spoil(&u)
		b, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		got, err := images.ReadUpdate(b)
		if want == "" && (err != nil || got.RootHash != u.RootHash) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzReadUpdate(f *testing.F) {
	b, err := json.Marshal(update(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := images.ReadUpdate(b)
		if err != nil {
			return
		}
		for _, p := range u.Parts() {
			if p.Size <= 0 || len(p.SHA256) != 64 || strings.Contains(p.Name, "/") {
				t.Errorf("%q: %+v", b, p)
			}
		}
	})
}
