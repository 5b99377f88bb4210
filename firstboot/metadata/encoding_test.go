package metadata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
)

// zipped is text as gzip has it.
func zipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecodeAs(t *testing.T) {
	const plain = "a: b\n"
	b64 := base64.StdEncoding.EncodeToString([]byte(plain))
	packed := string(zipped(t, plain))
	packed64 := base64.StdEncoding.EncodeToString([]byte(packed))
	for _, c := range []struct{ encoding, data, want string }{
		{"", plain, plain}, {"base64", b64, plain}, {"b64", b64, plain}, {" Base64\n", b64 + "\n", plain}, {"base64", strings.TrimRight(b64, "="), plain},
		{"base64", b64[:3] + "\r\n" + b64[3:], plain}, {"base64?", b64, plain}, {"base64?", plain, plain},
		{"gzip", packed, packed}, {"gzip+base64", packed64, packed}, {"gz+b64", packed64, packed},
	} {
		if got, err := decodeAs(c.encoding, c.data); err != nil || string(got) != c.want {
			t.Errorf("%q %q: %q %v", c.encoding, c.data, got, err)
		}
	}
	for _, c := range []struct{ encoding, data, want string }{
		{"base64", plain, "not the base64"}, {"gzip", plain, "not the gzip"}, {"gzip+base64", b64, "not the gzip"}, {"gzip+base64", plain, "not the base64"}, {"rot13", plain, `"rot13"`},
	} {
		if got, err := decodeAs(c.encoding, c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %q %v", c.encoding, c.data, got, err)
		}
	}
}

func TestGunzip(t *testing.T) {
	packed := zipped(t, "a: b\n")
	if got, err := gunzip(packed); err != nil || string(got) != "a: b\n" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := gunzip([]byte("a: b\n")); err != nil || string(got) != "a: b\n" {
		t.Errorf("plain: %q %v", got, err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut":     {packed[:len(packed)-6], "damaged"},
		"changed": {bytes.Replace(packed, packed[10:12], []byte{1, 2}, 1), "damaged"},
		"a bomb":  {zipped(t, strings.Repeat("\x00", config.MaxSize+1)), "larger than"},
	} {
		if got, err := gunzip(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// What guestinfo holds, by any encoding, is bytes of a bounded size or an error.
func FuzzDecode(f *testing.F) {
	packed := base64.StdEncoding.EncodeToString(zipped(f, "a: b\n"))
	for _, e := range []string{"", "base64", "b64", "base64?", "gzip", "gzip+base64", "gz+b64", "x"} {
		f.Add(e, packed)
		f.Add(e, "a: b\n")
	}
	f.Fuzz(func(t *testing.T, encoding, data string) {
		b, err := decodeAs(encoding, data)
		if err == nil {
			b, err = gunzip(b)
		}
		if err == nil && len(b) > max(config.MaxSize, len(data)) {
			t.Errorf("%d bytes of %d", len(b), len(data))
		}
	})
}
