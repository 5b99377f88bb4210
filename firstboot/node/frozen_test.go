package node

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// TestLoad: what was found of a cluster counts for the user-data that it was
// found with, and on a machine that has joined in any case; a record of an
// earlier kbuild does not say what it was made from.
func TestLoad(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	m := &Machine{Host: h}
	load := func(what string, want bool) {
		t.Helper()
		n, is, err := Load(h)
		if err != nil || !is || n.KnowsCluster() != want {
			t.Fatalf("%s: %+v, %t, %v; want it to know its cluster: %t", what, n, is, err, want)
		}
	}
	if n, is, err := Load(h); n != nil || is || err != nil {
		t.Fatalf("no node yet: %+v, %t, %v", n, is, err)
	}
	freeze := func(userData string) *config.Node {
		t.Helper()
		n := &config.Node{Role: config.RoleWorker, Sources: map[string]string{UserDataSource: userData}}
		if err := m.Freeze(n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := freeze("credential, sha256:1")
	load("nothing found", false)
	found := config.Cluster{}
	found.Cluster.Networking.ServiceSubnet = "10.96.0.0/12"
	if err := m.FreezeCluster(n, found); err != nil {
		t.Fatal(err)
	}
	load("found", true)
	freeze("credential, sha256:2")
	load("other user-data", false)
	joined := func() {
		t.Helper()
		if err := h.WriteFile(KubeletKubeconfig, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	joined()
	load("other user-data, joined", true)
	if err := h.Remove(KubeletKubeconfig); err != nil {
		t.Fatal(err)
	}
	old := func(text string) {
		t.Helper()
		if err := h.WriteFile(ClusterFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old(`{"cluster": {"networking": {"serviceSubnet": "10.96.0.0/12"}}, "kubelet": {}}`)
	load("found by an earlier kbuild", false)
	joined()
	load("found by an earlier kbuild, joined", true)
	old(`{"clusters": {}}`)
	if _, _, err := Load(h); err == nil || !strings.Contains(err.Error(), ClusterFile) {
		t.Errorf("a record that is none: %v", err)
	}
}
