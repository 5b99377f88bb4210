package pull

import (
	"maps"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestLock(t *testing.T) {
	s := newServer(t)
	old, moved := image(t, "amd64", layer(1, 100)), image(t, "amd64", layer(2, 100))
	ref := s.push(t, "image:v1", index(map[string]v1.Image{"amd64": old}))
	pulled, err := Pull(t.Context(), options(t, ref))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := ParseLock("lock", NewLock(pulled).Bytes())
	if err != nil || !maps.Equal(lock, NewLock(pulled)) {
		t.Fatalf("read back: %v, %v", lock, err)
	}
	// The tag moves; the lock does not.
	s.push(t, "image:v1", index(map[string]v1.Image{"amd64": moved}))
	o := options(t, ref)
	o.Lock = lock
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if in := check(t, o.Dir); digestOf(t, in[ref]) != digestOf(t, old) {
		t.Error("the image that the tag moved to was pulled")
	}
	o.Images = append(o.Images, s.push(t, "image:v2", moved))
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "it is not in the lock file") {
		t.Errorf("an image that is not locked: %v", err)
	}
	o = options(t, ref)
	o.Lock = Lock{ref: "sha256:" + strings.Repeat("0", 64)}
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a digest that is not there: %v", err)
	}
}

func TestParseLock(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"# comment\n\n  k8s.gcr.io/a:1   " + d + "\r\n": "",
		"k8s.gcr.io/a:1":             "f:1: want NAME DIGEST",
		"\nk8s.gcr.io/a:1 sha256:aa": "f:2: \"sha256:aa\" is not a digest",
		"busybox " + d:               "f:1: busybox is not a full image name: write docker.io/library/busybox:latest",
		"A B":                        "f:1: ",
		"k8s.gcr.io/a:1 " + d + "\nk8s.gcr.io/a:1 " + d:                   "f:2: k8s.gcr.io/a:1 is named twice",
		"k8s.gcr.io/a:1 sha512:" + strings.Repeat("a", 128):               "is not a digest",
		"k8s.gcr.io/a:1 sha256:" + strings.Repeat("A", 64) + "\nb:1 " + d: "is not a digest",
	} {
		l, err := ParseLock("f", []byte(in))
		if want == "" && (err != nil || l["k8s.gcr.io/a:1"] != d) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v; want %q", in, l, err, want)
		}
	}
}

// FuzzParseLock: no panic, and what is read is written and read the same.
func FuzzParseLock(f *testing.F) {
	f.Add("k8s.gcr.io/a:1 sha256:" + strings.Repeat("a", 64) + "\n# x\n\n")
	f.Add("a b\n")
	f.Fuzz(func(t *testing.T, in string) {
		l, err := ParseLock("f", []byte(in))
		if err != nil {
			return
		}
		again, err := ParseLock("f", l.Bytes())
		if err != nil || !maps.Equal(l, again) {
			t.Errorf("%q was read as %v and then as %v, %v", in, l, again, err)
		}
	})
}
