package identity

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// noise cannot be compressed.
func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// What just fits fits, and one byte more does not; three more where they are
// counted after base64, which goes by threes.
func TestFits(t *testing.T) {
	for name, p := range platforms() {
		most := p.limit
		if p.base64 {
			most = p.limit / 4 * 3
		}
		if says, err := Fits(name, noise(most)); err != nil || !strings.Contains(says, fmt.Sprint(p.limit)) {
			t.Errorf("%s: %d bytes: %q, %v", name, most, says, err)
		}
		_, err := Fits(name, noise(most+1))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(p.limit)) || !strings.Contains(err.Error(), fmt.Sprint(p.size(most+1))) || !strings.Contains(err.Error(), "nocloud-iso") || strings.Contains(err.Error(), "gzip") {
			t.Errorf("%s: %d bytes: %v", name, most+1, err)
		}
		// What gzip makes small enough is told so.
		if _, err := Fits(name, make([]byte, most+1)); err == nil || !strings.Contains(err.Error(), "gzip -9 makes it ") {
			t.Errorf("%s: zeros: %v", name, err)
		}
	}
}

// docs/user-data.md has each platform with its limit.
func TestPlatformsInDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/user-data.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range platforms() {
		how := "as it is"
		if p.base64 {
			how = "after base64"
		}
		if row := fmt.Sprintf("| `%s` | %d | %s |\n", name, p.limit, how); !strings.Contains(string(b), row) {
			t.Errorf("docs/user-data.md lacks %q", row)
		}
	}
}
