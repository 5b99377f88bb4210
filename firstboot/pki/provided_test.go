package pki

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
)

// TestPlaceProvided: an identity that was made beforehand is put in place with the
// modes of its kinds, keys first; another one in its place is never written over.
func TestPlaceProvided(t *testing.T) {
	h, n := machine(t), testNode()
	n.Init.PKI = map[string]config.Secret{"ca.crt": "certificate", "ca.key": "key", "etcd/ca.key": "etcd key", "sa.pub": "public"}
	if has, err := HasProvided(h, n); has || err != nil {
		t.Fatalf("given before it is placed: %t, %v", has, err)
	}
	var order []string
	h.Effect = func(what string) error { order = append(order, what); return nil }
	if err := PlaceProvided(h, n); err != nil {
		t.Fatal(err)
	}
	if last := order[len(order)-1]; !strings.HasSuffix(last, "ca.crt") {
		t.Errorf("written in the order %q: the certificate is not last", order)
	}
	if has, err := HasProvided(h, n); !has || err != nil {
		t.Errorf("given after it is placed: %t, %v", has, err)
	}
	for name, mode := range map[string]string{"ca.crt": "-rw-r--r--", "ca.key": "-rw-------", "etcd/ca.key": "-rw-------"} {
		st, err := h.Root.Stat(strings.TrimPrefix(n.Cluster.CertificatesDir+"/"+name, "/"))
		if err != nil || st.Mode().String() != mode {
			t.Errorf("%s: %v %v, want %s", name, st.Mode(), err, mode)
		}
	}
	n.Init.PKI["ca.key"] = "another key"
	_, err := HasProvided(h, n)
	if err == nil || !strings.Contains(err.Error(), "ca.key is there and not what") || strings.Contains(err.Error(), "another key") {
		t.Errorf("another identity: %v", err)
	}
}
