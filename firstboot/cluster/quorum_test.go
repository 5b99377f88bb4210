package cluster

import (
	"strings"
	"testing"
)

// A cluster may lose a member of etcd while the others are a quorum.
func TestLossOfMember(t *testing.T) {
	well, ill := Peer{"a", true}, Peer{"b", false}
	for name, c := range map[string]struct {
		others []Peer
		want   string
		ends   bool
	}{
		"the only one":         {nil, "only member of etcd", true},
		"one of two":           {[]Peer{well}, "", false},
		"one of two, ill":      {[]Peer{ill}, "of the 1 other members 0 are well, 1 are needed (not well: b)", false},
		"one of three":         {[]Peer{well, well}, "", false},
		"one of three, ill":    {[]Peer{well, ill}, "of the 2 other members 1 are well, 2 are needed", false},
		"one of four, one ill": {[]Peer{well, well, ill}, "", false},
	} {
		got := LossOfMember("this node", c.others)
		if got.Ends != c.ends || c.want == "" && got.Says != "" || !strings.Contains(got.Says, c.want) {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}
