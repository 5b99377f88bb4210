package firstboot

import (
	"strings"
	"testing"
)

const (
	// kubeadm's default of v1.19, and one that no kubeadm has made: upstream is
	// an option of the plugin kubernetes that CoreDNS 1.7.0 does not read.
	defaultCorefile = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n"
	ownCorefile     = "# ours\nexample.com:53 {\n    kubernetes cluster.local {\n        pods insecure\n        upstream\n    }\n    forward . 192.0.2.53\n}\n"
	plainCorefile   = "# ours\nexample.com:53 {\n    errors\n    cache 30\n}\n"
)

func TestCorefile(t *testing.T) {
	migrated, err := corefileData(map[string]string{corefileKey: ownCorefile}, "fresh", "1.6.7", "1.7.0")
	if err != nil || strings.Contains(migrated[corefileKey], "upstream") || !strings.Contains(migrated[corefileKey], "192.0.2.53") || migrated[corefileBackup] != ownCorefile {
		t.Fatalf("%q, %v: want it without the option that 1.7.0 does not read, and the one from before beside it", migrated, err)
	}
	for name, c := range map[string]struct {
		have     map[string]string
		from, to string
		want     string // Corefile that is written; empty is none
		bad      bool
	}{
		"it is there already":              {map[string]string{corefileKey: "fresh"}, "1.7.0", "1.8.0", "", false},
		"kubeadm's default":                {map[string]string{corefileKey: defaultCorefile}, "1.6.7", "1.7.0", "fresh", false},
		"none":                             {map[string]string{}, "1.7.0", "1.8.0", "fresh", false},
		"theirs, and the new one reads it": {map[string]string{corefileKey: plainCorefile}, "1.6.7", "1.7.0", "", false},
		"theirs, same version":             {map[string]string{corefileKey: ownCorefile}, "1.7.0", "1.7.0", "", false},
		"theirs, after a cut":              {migrated, "1.6.7", "1.7.0", "", false},
		"theirs, back":                     {migrated, "1.7.0", "1.6.7", ownCorefile, false},
		"theirs, back, written since":      {map[string]string{corefileKey: plainCorefile, corefileBackup: ownCorefile}, "1.7.0", "1.6.7", "", true},
		"a CoreDNS of their own":           {map[string]string{corefileKey: ownCorefile}, "9.9.9", "1.7.0", "", true},
	} {
		got, err := corefileData(c.have, "fresh", c.from, c.to)
		if got[corefileKey] != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %q, %v; want %q (an error: %t)", name, got, err, c.want, c.bad)
		}
	}
}
