package images

import (
	"strings"
	"testing"
)

func TestFollows(t *testing.T) {
	for _, c := range []struct{ old, to, want string }{
		{"v1.19.12", "v1.20.15", ""},
		{"v1.19.12", "v1.19.16", ""},
		{"v1.19.12", "v1.19.12", ""},
		{"v1.20.15", "v1.19.12", "it is older"},
		{"v1.19.12", "v1.19.11", "it is older"},
		{"v1.20.15", "v1.37.2", "v1.21 first"},
		{"v1.25.0", "v1.37.2", "v1.26 first"},
		{"v1.18.0", "v1.19.12", "does not know"},
	} {
		r, err := Lookup(c.to)
		if err != nil {
			t.Fatal(err)
		}
		err = r.CheckUpgradeFrom(c.old)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s after %s: %v, want %q", c.to, c.old, err, c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for old, want := range map[string]string{
		"v1.19.12": "v1.19.16 v1.20.15",
		"v1.19.16": "v1.20.15",
		"v1.20.15": "v1.21.14",
		"v1.37.0":  "v1.37.2",
		"v1.25.0":  "v1.25.16 v1.26.15",
		"v1.18.0":  "",
	} {
		if got := strings.Join(Targets(old), " "); got != want {
			t.Errorf("from %s: %q, want %q", old, got, want)
		}
	}
}

func TestBefore(t *testing.T) {
	r, err := Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]bool{"v1.19.11": false, "v1.19.12": false, "v1.19.13": true, "v1.20.0": true, "v1.9.20": false, "": false} {
		if got := r.Before(version); got != want {
			t.Errorf("v1.19.12 is older than %q: %t", version, got)
		}
	}
}

func TestReached(t *testing.T) {
	r, err := Lookup("v1.25.16")
	if err != nil {
		t.Fatal(err)
	}
	for minor, want := range map[string]bool{"1.9": true, "1.25": true, "1.26": false, "": false, "next": false} {
		if got := r.Reached(minor); got != want {
			t.Errorf("v1.25.16 is of %q or later: %t", minor, got)
		}
	}
}

func TestReadsEtcd(t *testing.T) {
	r := Release{Etcd: Image{"etcd", "3.5.6-0"}}
	for tag, want := range map[string]bool{"3.5.0-0": true, "3.4.13-0": true, "3.6.1-0": false, "4.0.0-0": false, "": false} {
		if got := r.ReadsEtcd(tag); got != want {
			t.Errorf("etcd 3.5.6 reads the data of %q: %t", tag, got)
		}
	}
}
