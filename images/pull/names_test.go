package pull

import (
	"slices"
	"strings"
	"testing"
)

func TestFullName(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for in, want := range map[string]string{
		"k8s.gcr.io/etcd:3.4.13-0":         "k8s.gcr.io/etcd:3.4.13-0",
		"busybox":                          "docker.io/library/busybox:latest",
		"docker.io/coredns/coredns:1.7.0":  "docker.io/coredns/coredns:1.7.0",
		"example.com:5000/a/b":             "example.com:5000/a/b:latest",
		"example.com/a:v1" + digest:        "example.com/a" + digest,
		"example.com/A:v1":                 "",
		"example.com/a:":                   "",
		"https://example.com/a":            "",
		"example.com/a@sha256:12":          "",
		"":                                 "",
		"registry.k8s.io/coredns/coredns:": "",
	} {
		got, err := FullName(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestSources(t *testing.T) {
	parse := func(s ...string) (ms []Mirror) {
		for _, one := range s {
			m, err := ParseMirror(one)
			if err != nil {
				t.Fatal(err)
			}
			ms = append(ms, m)
		}
		return ms
	}
	for _, c := range []struct {
		full    string
		mirrors []Mirror
		want    string
	}{
		{"registry.k8s.io/pause:3.10.2", nil, "registry.k8s.io/pause:3.10.2"},
		{"k8s.gcr.io/pause:3.2", nil, "registry.k8s.io/pause:3.2"},
		{"k8s.gcr.io/pause:3.2", parse("registry.k8s.io=m:5000/k8s/"), "m:5000/k8s/pause:3.2"},
		{"k8s.gcr.io/pause:3.2", parse("registry.k8s.io=m:5000/k8s", "k8s.gcr.io=old.example.com"), "old.example.com/pause:3.2"},
		{"registry.k8s.io/a/b:1", parse("registry.k8s.io=m.example.com", "registry.k8s.io/a=n.example.com/x"), "n.example.com/x/b:1"},
		{"registry.k8s.io/ab:1", parse("registry.k8s.io/a=n.example.com"), "registry.k8s.io/ab:1"},
		{"registry.k8s.io/a:1", parse("registry.k8s.io=one.example.com", "registry.k8s.io=registry.k8s.io"), "one.example.com/a:1 registry.k8s.io/a:1"},
		{"docker.io/library/busybox:1", parse("docker.io=m.example.com"), "m.example.com/library/busybox:1"},
		{"ghcr.io/x:1", parse("docker.io=m.example.com"), "ghcr.io/x:1"},
	} {
		refs, err := sources(c.full, c.mirrors)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range refs {
			got = append(got, r.Name())
		}
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s with %v: %v, want %s", c.full, c.mirrors, got, c.want)
		}
	}
	for _, bad := range []string{"", "a", "=b", "a=", "a.example.com=https://b.example.com", "a.example.com=b c"} {
		if m, err := ParseMirror(bad); err == nil {
			t.Errorf("mirror %q is taken as %v", bad, m)
		}
	}
}

func TestMirror(t *testing.T) {
	up, empty := newServer(t), newServer(t)
	img := image(t, "amd64", layer(1, 1000))
	up.push(t, "k8s/pause:3.2", img)
	o := options(t, "k8s.gcr.io/pause:3.2")
	// The first mirror does not have it; the second does.
	o.Mirrors = []Mirror{{"registry.k8s.io", empty.host}, {"registry.k8s.io", up.host + "/k8s"}}
	got, err := Pull(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if in := check(t, o.Dir); digestOf(t, in["k8s.gcr.io/pause:3.2"]) != digestOf(t, img) {
		t.Errorf("the layout holds %v", in)
	}
	if got[0].From != up.host+"/k8s/pause:3.2" {
		t.Errorf("pulled from %s", got[0].From)
	}
	if empty.requests("/v2/pause/manifests/3.2") != 1 {
		t.Errorf("the first mirror was asked for %v", empty.seen)
	}

	// A mirror with the manifest and without a layer: the next one has it.
	half := newServer(t)
	half.push(t, "pause:3.2", img)
	half.misbehave("/blobs/", 100, status(404))
	o = options(t, "k8s.gcr.io/pause:3.2")
	o.Mirrors = []Mirror{{"registry.k8s.io", half.host}, {"registry.k8s.io", up.host + "/k8s"}}
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(t, o.Dir)

	// No mirror has it: both are named.
	o = options(t, "k8s.gcr.io/none:1")
	o.Mirrors = []Mirror{{"registry.k8s.io", empty.host}, {"registry.k8s.io", up.host + "/k8s"}}
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "from "+empty.host+"/none:1") || !strings.Contains(err.Error(), "from "+up.host+"/k8s/none:1") {
		t.Errorf("error: %v", err)
	}
}
