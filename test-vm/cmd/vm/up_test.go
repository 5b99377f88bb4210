package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// oneAnswer is a machine that answers one question.
type oneAnswer struct {
	testvm.Machine
	data string
}

func (o oneAnswer) Ask(_ context.Context, _ string, _, out any) error {
	out.(*guest.Kubeconfig).Data = []byte(o.data)
	return nil
}

func TestFetchKubeconfig(t *testing.T) {
	name := filepath.Join(t.TempDir(), "kubeconfig")
	m := oneAnswer{data: "clusters:\n- cluster:\n    certificate-authority-data: QUJD\n    server: https://10.0.2.15:6443\n  name: kubernetes\n"}
	for range 2 { // again over the old one
		if err := fetchKubeconfig(t.Context(), m, 7443, name); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	want := "clusters:\n- cluster:\n    certificate-authority-data: QUJD\n    server: https://127.0.0.1:7443\n  name: kubernetes\n"
	if err != nil || string(b) != want {
		t.Errorf("%v\ngot  %q\nwant %q", err, b, want)
	}
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v; want 0600: it is a secret", err, st.Mode())
	}
}

func TestFreePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	got, err := freePort(taken)
	if err != nil || got == taken || got == 0 {
		t.Errorf("freePort(%d) = %d, %v", taken, got, err)
	}
	if again, err := freePort(got); err != nil || again != got {
		t.Errorf("freePort(%d) = %d, %v; want the same: kubeconfigs name it", got, again, err)
	}
}
