package images

import (
	"errors"
	"strings"
	"testing"
)

func TestAssume(t *testing.T) {
	r, err := Assume("v1.36.99")
	if err != nil || r.Version != "v1.36.99" || !r.Has(FactContainerd2) {
		t.Errorf("%v %v", r, err)
	}
	if _, err := Lookup("v1.36.99"); !errors.As(err, &UnseenPatch{}) {
		t.Errorf("%v", err)
	}
	if _, err := Assume("v1.99.0"); err == nil {
		t.Error("an unknown minor is assumed")
	}
	// A node of one unseen patch is upgraded to another.
	if err := r.CheckUpgradeFrom("v1.36.98"); err != nil {
		t.Error(err)
	}
	if err := r.CheckUpgradeFrom("v1.36.100"); err == nil {
		t.Error("it is downgraded")
	}
}

func TestWithConstants(t *testing.T) {
	r, err := Assume("v1.36.99")
	if err != nil {
		t.Fatal(err)
	}
	fits := Constants{Etcd: "3.6.99-0", EtcdBefore: "3.6.98-0", ExternalEtcd: "3.5.24-0", CoreDNS: "v1.14.9", Pause: "3.10.9", Registry: newRegistry}
	got, err := r.WithConstants(fits)
	if err != nil || got.Etcd.Tag != "3.6.99-0" || got.EtcdFor[35] != "3.6.98-0" || got.CoreDNS.Tag != "v1.14.9" || got.Pause.Tag != "3.10.9" || !got.Unseen {
		t.Errorf("%+v %v", got, err)
	}
	for name, c := range map[string]struct {
		spoil func(*Constants)
		want  string
	}{
		"etcd":     {func(c *Constants) { c.Etcd = "3.7.0-0" }, `DefaultEtcdVersion is "3.7.0-0"`},
		"CoreDNS":  {func(c *Constants) { c.CoreDNS = "v1.15.0" }, `CoreDNSVersion is "v1.15.0"`},
		"registry": {func(c *Constants) { c.Registry = "registry.example.com" }, "DefaultImageRepository"},
		"pause":    {func(c *Constants) { c.Pause = "" }, "PauseVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := fits
			c.spoil(&bad)
			if _, err := r.WithConstants(bad); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
