package pull

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func events() []Event {
	h := func(s string) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(s, 64)} }
	shared := Blob{h("a"), 1_000_000}
	return []Event{
		{Kind: Resolved, Image: "example.com/one:1", Blobs: []Blob{shared, {h("b"), 2_000_000}}},
		{Kind: Resolved, Image: "example.com/two:2", Blobs: []Blob{shared}},
		{Kind: Bytes, Digest: h("a"), Bytes: 1_000_000},
		{Kind: Done, Image: "example.com/two:2", Digest: h("2")},
		{Kind: Bytes, Digest: h("b"), Bytes: 500_000},
		{Kind: Retrying, Image: "example.com/one:1", Err: errors.New("the registry answers\n429"), Wait: 2 * time.Second},
		{Kind: Bytes, Digest: h("b"), Bytes: 2_000_000},
		{Kind: Done, Image: "example.com/one:1", Digest: h("1")},
	}
}

func TestLines(t *testing.T) {
	var out strings.Builder
	report := Lines(&out)
	for _, e := range events() {
		report(e)
	}
	want := `pulled example.com/two:2 (1000 kB); 1 of 2 images, 1000 kB of 3000 kB
example.com/one:1: the registry answers; 429; trying again in 2s
pulled example.com/one:1 (3000 kB); 2 of 2 images, 3000 kB of 3000 kB
`
	if out.String() != want {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestLive(t *testing.T) {
	var out strings.Builder
	v := &view{state: newState(), w: &out, width: func() int { return 50 }}
	for i, e := range events() {
		v.report(e)
		if i == 5 {
			v.draw()
		}
	}
	v.draw()
	want := "\x1b[Kexample.com/one:1  1500 kB of 3000 kB, the regist\n" +
		"\x1b[Kexample.com/two:2  1000 kB, done\n" +
		"\x1b[K[##########..........] 1 of 2 images, 1500 kB of \n" +
		"\x1b[3A" +
		"\x1b[Kexample.com/one:1  3000 kB, done\n" +
		"\x1b[Kexample.com/two:2  1000 kB, done\n" +
		"\x1b[K[####################] 2 of 2 images, 3000 kB of \n"
	if out.String() != want {
		t.Errorf("got:\n%q\nwant:\n%q", out.String(), want)
	}

	out.Reset()
	report, stop := Live(&out, func() int { return 0 })
	for _, e := range events() {
		report(e)
	}
	stop()
	stop()
	if !strings.HasSuffix(out.String(), "2 of 2 images, 3000 kB of 3000 kB\n") {
		t.Errorf("the last drawing:\n%q", out.String())
	}
}
