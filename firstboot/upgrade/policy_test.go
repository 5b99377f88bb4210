package upgrade

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

// TestMayRollBack: a node goes back only to what it has kept a copy of, and a
// machine that is no node yet tries nothing.
func TestMayRollBack(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	m := &node.Machine{Host: h}
	if m.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
		t.Fatal(err)
	}
	if err := CheckTry(m); err == nil || !strings.Contains(err.Error(), "no node yet") {
		t.Errorf("a machine that is no node yet: %v", err)
	}
	check := func(what, other, want string) {
		t.Helper()
		err := CheckRollback(m, other)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("no node yet", "v1.19.12", "")
	if err := h.WriteFile(node.ConfigFile, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckTry(m); err != nil {
		t.Errorf("a node: %v", err)
	}
	check("another image of the version", "v1.20.15", "")
	check("made in this version", "v1.19.12", "has no backup of that version")
	if err := m.Host.WriteJSON(backupRecord, Backup{Version: "v1.19.12", To: "v1.20.15", Etcd: "3.4.13-0", Data: "/var/lib/etcd"}); err != nil {
		t.Fatal(err)
	}
	check("moved", "v1.19.12", "")
	if err := m.Host.WriteJSON(backupRecord, Backup{Version: "v1.19.12", To: "v1.20.15", Etcd: "3.5.0-0", Data: "/var/lib/etcd"}); err != nil {
		t.Fatal(err)
	}
	check("etcd moved on", "v1.19.12", "does not read it")
	if err := m.Host.WriteJSON(node.ResetFile, struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := CheckTry(m); err == nil || !strings.Contains(err.Error(), "being reset") {
		t.Errorf("a machine that is reset: %v", err)
	}
}
