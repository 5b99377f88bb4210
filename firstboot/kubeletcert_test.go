package firstboot

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/pki"
)

// TestRenewClientCertificate: a kubelet whose certificate has expired gets
// another one where the authority's key is, and else it is said what helps.
func TestRenewClientCertificate(t *testing.T) {
	m := initMachine(t)
	if err := kubelet.RenewCertificate(m); err != nil {
		t.Errorf("before there is one: %v", err)
	}
	if err := runSteps(t.Context(), m, stepCerts()); err != nil {
		t.Fatal(err)
	}
	const old = kubelet.PKIDir + "/kubelet-client-2024-01-01-00-00-00.pem"
	place := func(at time.Time) {
		t.Helper()
		pair, err := pki.NodeClient(m.Host, m.Node, m.Release(), pki.Clock{Now: at})
		if err == nil {
			err = m.Host.WriteFile(old, pair, 0o600)
		}
		if err == nil {
			err = errors.Join(m.Host.Remove(kubelet.CurrentCertificate(m.Node)), os.Symlink(old, m.Host.Path(kubelet.CurrentCertificate(m.Node)))) // as kubelets do
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	target := func() string {
		to, err := os.Readlink(m.Host.Path(kubelet.CurrentCertificate(m.Node)))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	place(m.Host.Now().AddDate(0, -6, 0))
	if err := kubelet.RenewCertificate(m); err != nil || target() != old {
		t.Errorf("one that is in force: %s, %v", target(), err)
	}
	place(m.Host.Now().AddDate(-1, 0, -1))
	if err := kubelet.RenewCertificate(m); err != nil || target() != "kubelet-client-first.pem" {
		t.Fatalf("one that has expired: %s, %v", target(), err)
	}
	b, err := m.Host.ReadFile(kubelet.PKIDir + "/kubelet-client-first.pem")
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := pki.Ended(b, m.Clock()); err != nil || !ended.IsZero() || !strings.Contains(string(b), "EC PRIVATE KEY") {
		t.Errorf("the new one: %v, %v", ended, err)
	}
	place(m.Host.Now().AddDate(-1, 0, -1))
	if err := m.Host.Remove("/etc/kubernetes/pki/ca.key"); err != nil {
		t.Fatal(err)
	}
	if w := why(t, kubelet.RenewCertificate(m)); !strings.Contains(w, "has expired") || !strings.Contains(w, "reset --force") || target() != old {
		t.Errorf("without the authority's key: %s", w)
	}
}
