package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild/kbuild/images"
)

// TestPush: what a registry hands out is what was built, file by file.
func TestPush(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) images.Part {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(data))
		return images.Part{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	}
	rel, err := images.Lookup("v1.20.15")
	if err != nil {
		t.Fatal(err)
	}
	const base = "kbuild_v1.20.15_abababababababab."
	u := images.Update{Arch: "amd64", Release: rel, TrialBoots: 3, RootHash: strings.Repeat("ab", 32),
		Root: write(base+images.UpdateRoot, "a root"), Verity: write(base+images.UpdateVerity, "hashes"), UKI: write(base+images.UpdateUKI, "a kernel")}
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	write(images.UpdateFile, string(b))
	write(images.UpdateSums, "sums")
	write(images.UpdateSignature, "signature")

	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	to := strings.TrimPrefix(s.URL, "http://") + "/nodes:v1.20.15"
	digest, err := Push(t.Context(), dir, "oci://"+to, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := img.Digest(); d.String() != digest || string(m.Config.MediaType) != images.ArtifactType {
		t.Errorf("digest %s, want %s; config %s", d, digest, m.Config.MediaType)
	}
	var got []string
	for _, l := range m.Layers {
		layer, err := img.LayerByDigest(l.Digest)
		if err != nil {
			t.Fatal(err)
		}
		r, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		want, _ := os.ReadFile(filepath.Join(dir, l.Annotations[images.ArtifactTitle]))
		if err != nil || string(data) != string(want) {
			t.Errorf("%s: %q, %v", l.Annotations[images.ArtifactTitle], data, err)
		}
		got = append(got, l.Annotations[images.ArtifactTitle])
	}
	slices.Sort(got)
	if want := []string{"SHA256SUMS", "SHA256SUMS.sig", base + "root.erofs", base + "root.verity", base + "uki.efi", "update.json"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}

	write(base+images.UpdateRoot, "another")
	if _, err := Push(t.Context(), dir, "oci://"+to, func(string, ...any) {}); err == nil || !strings.Contains(err.Error(), "root.erofs is not the file") {
		t.Errorf("a root that is not the update's: %v", err)
	}
	if _, err := Push(t.Context(), dir, to, func(string, ...any) {}); err == nil || !strings.Contains(err.Error(), "want oci://") {
		t.Errorf("no oci://: %v", err)
	}
}
