package firstboot

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/pki"
)

// TestRenewClientCertificate: a kubelet whose certificate has expired gets
// another one where the authority's key is, and else it is said what helps.
func TestRenewClientCertificate(t *testing.T) {
	r := initMachine(t)
	if err := renewClientCertificate(r); err != nil {
		t.Errorf("before there is one: %v", err)
	}
	if err := converge(t.Context(), r, stepCerts()); err != nil {
		t.Fatal(err)
	}
	const old = kubeletPKI + "/kubelet-client-2024-01-01-00-00-00.pem"
	place := func(at time.Time) {
		t.Helper()
		pair, err := pki.NodeClient(r.Host, r.Node, pki.Clock{Now: at})
		if err == nil {
			err = r.Host.WriteFile(old, pair, 0o600)
		}
		if err == nil {
			err = errors.Join(r.Host.Remove(rotatedCertificate(r.Node)), os.Symlink(old, r.Host.Path(rotatedCertificate(r.Node)))) // as kubelets do
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	target := func() string {
		to, err := os.Readlink(r.Host.Path(rotatedCertificate(r.Node)))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	place(r.Host.Now().AddDate(0, -6, 0))
	if err := renewClientCertificate(r); err != nil || target() != old {
		t.Errorf("one that is in force: %s, %v", target(), err)
	}
	place(r.Host.Now().AddDate(-1, 0, -1))
	if err := renewClientCertificate(r); err != nil || target() != firstCertificate {
		t.Fatalf("one that has expired: %s, %v", target(), err)
	}
	b, err := r.Host.ReadFile(kubeletPKI + "/" + firstCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := pki.Ended(b, certClock(r)); err != nil || !ended.IsZero() || !strings.Contains(string(b), "EC PRIVATE KEY") {
		t.Errorf("the new one: %v, %v", ended, err)
	}
	place(r.Host.Now().AddDate(-1, 0, -1))
	if err := r.Host.Remove("/etc/kubernetes/pki/ca.key"); err != nil {
		t.Fatal(err)
	}
	if w := why(t, renewClientCertificate(r)); !strings.Contains(w, "has expired") || !strings.Contains(w, "reset --force") || target() != old {
		t.Errorf("without the authority's key: %s", w)
	}
}
