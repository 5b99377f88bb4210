package firstboot

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/templates"
)

const (
	// kubeadm's default of v1.19, and one that no kubeadm has made: upstream is
	// an option of the plugin kubernetes that CoreDNS 1.7.0 does not read.
	defaultCorefile = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n"
	ownCorefile     = "# ours\nexample.com:53 {\n    kubernetes cluster.local {\n        pods insecure\n        upstream\n    }\n    forward . 192.0.2.53\n}\n"
	plainCorefile   = "# ours\nexample.com:53 {\n    errors\n    cache 30\n}\n"
)

func TestCorefile(t *testing.T) {
	migrated, err := corefileData(map[string]string{corefileKey: ownCorefile}, "", "fresh", "1.6.7", "1.7.0")
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
		"an image's, no default":           {map[string]string{corefileKey: "an image's"}, "1.12.0", "1.11.3", "fresh", false},
		"none":                             {map[string]string{}, "1.7.0", "1.8.0", "fresh", false},
		"theirs, and the new one reads it": {map[string]string{corefileKey: plainCorefile}, "1.6.7", "1.7.0", "", false},
		"theirs, same version":             {map[string]string{corefileKey: ownCorefile}, "1.7.0", "1.7.0", "", false},
		"theirs, after a cut":              {migrated, "1.6.7", "1.7.0", "", false},
		"theirs, back":                     {migrated, "1.7.0", "1.6.7", ownCorefile, false},
		"theirs, back, written since":      {map[string]string{corefileKey: plainCorefile, corefileBackup: ownCorefile}, "1.7.0", "1.6.7", "", true},
		"a CoreDNS of their own":           {map[string]string{corefileKey: ownCorefile}, "9.9.9", "1.7.0", "", true},
	} {
		got, err := corefileData(c.have, "an image's", "fresh", c.from, c.to)
		if got[corefileKey] != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %q, %v; want %q (an error: %t)", name, got, err, c.want, c.bad)
		}
	}
}

// TestCorefileVersions: from each release to the next, and within a minor, a
// Corefile of one's own goes on, kubeadm's default gives way to the next one's,
// and nothing is made up where the migration library knows no way.
func TestCorefileVersions(t *testing.T) {
	var releases []images.Release
	for _, r := range images.Known() {
		for _, v := range []string{r.Oldest, r.Newest} {
			rel, err := images.Lookup(v)
			if err != nil {
				t.Fatal(err)
			}
			releases = append(releases, rel)
		}
	}
	corefile := func(rel images.Release) string {
		text, err := templates.CoreDNS.Render(templates.AddonParams{Release: rel, DNSDomain: "prod.example.com", DNSReplicas: 2})
		if err != nil {
			t.Fatal(err)
		}
		objs, err := cluster.Typed("coredns.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objs {
			if cm, ok := o.(*corev1.ConfigMap); ok {
				return cm.Data[corefileKey]
			}
		}
		t.Fatal("the add-on has no ConfigMap")
		return ""
	}
	number := func(rel images.Release) string { return strings.TrimPrefix(rel.CoreDNS.Tag, "v") }
	for i := range releases {
		for _, j := range []int{i + 1, i + 2} {
			if j >= len(releases) {
				continue
			}
			from, to := releases[i], releases[j]
			fresh := corefile(to)
			down := number(from) == "1.11.3" && number(to) == "1.11.1" // v1.30.14 has a newer CoreDNS than v1.31.0
			got, err := corefileData(map[string]string{corefileKey: plainCorefile}, "", fresh, number(from), number(to))
			if got != nil || (err != nil) != down {
				t.Errorf("%s to %s: a Corefile of one's own becomes %q, %v", from.Version, to.Version, got, err)
			}
			old := corefile(from)
			got, err = corefileData(map[string]string{corefileKey: old}, old, fresh, number(from), number(to))
			if err != nil || old == fresh && got != nil || old != fresh && (got[corefileKey] != fresh || len(got) != 1) {
				t.Errorf("%s to %s: the default becomes %q, %v", from.Version, to.Version, got, err)
			}
		}
	}
	// CoreDNS 1.8.0 took the option away.
	const transfer = "example.com:53 {\n    kubernetes cluster.local {\n        transfer to 192.0.2.1\n    }\n}\n"
	got, err := corefileData(map[string]string{corefileKey: transfer}, "", "fresh", "1.7.0", "1.8.0")
	if err != nil || !strings.Contains(got[corefileKey], "    kubernetes cluster.local\n    transfer cluster.local {\n        to 192.0.2.1\n") || got[corefileBackup] != transfer {
		t.Errorf("%q, %v", got, err)
	}
}
