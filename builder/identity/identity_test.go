package identity

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// quick is a cluster whose keys take no time to make.
func quick() Spec {
	return Spec{Name: "prod", Endpoint: "k8s.example.com", Config: config.Document{Source: "quick.yaml", Data: []byte("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nfeatureGates: {PublicKeysECDSA: true}\n")}}
}

func identity(t *testing.T) *Identity {
	t.Helper()
	id, err := New(t.Context(), quick(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parent(t *testing.T) *host.Host {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &host.Host{Root: root, Log: slog.New(slog.DiscardHandler)}
}

// contents are the files below a host's root, with their modes.
func contents(t *testing.T, h *host.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(h.Root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		all[name] = i.Mode().String()
		if !d.IsDir() {
			b, err := h.Root.ReadFile(name)
			all[name] += "\n" + string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

type killed struct{}

// TestCreateKilled kills the process before each thing that it does: the
// directory is not there, or whole, and the next run makes it as if nothing had
// been.
func TestCreateKilled(t *testing.T) {
	id := identity(t)
	whole := parent(t)
	steps := 0
	whole.Effect = func(string) error { steps++; return nil }
	if err := Create(whole, "prod", id, Lock{}); err != nil {
		t.Fatal(err)
	}
	want := contents(t, whole)
	if steps < 12 {
		t.Fatalf("only %d effects are seen", steps)
	}
	for k := range steps {
		h, n := parent(t), 0
		h.Effect = func(string) error {
			if n == k {
				panic(killed{})
			}
			n++
			return nil
		}
		func() {
			defer func() {
				if _, ok := recover().(killed); !ok {
					t.Fatal("it was not killed")
				}
			}()
			Create(h, "prod", id, Lock{})
		}()
		if h.Exists("prod") {
			t.Errorf("killed before effect %d, and it is there: half of it", k)
		}
		h.Effect = nil
		if err := Create(h, "prod", id, Lock{}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, contents(t, h)); d != "" {
			t.Errorf("killed before effect %d, and made again:\n%s", k, d)
		}
	}
}

// A failure that is no kill leaves nothing.
func TestCreateFails(t *testing.T) {
	h, id := parent(t), identity(t)
	full := errors.New("no space left")
	h.Effect = func(what string) error {
		if strings.Contains(what, "token") {
			return full
		}
		return nil
	}
	if err := Create(h, "prod", id, Lock{}); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if all := contents(t, h); len(all) != 1 {
		t.Errorf("left %v", all)
	}
	h.Effect = nil
	if err := Create(h, "prod", id, Lock{}); err != nil {
		t.Fatal(err)
	}
	before := contents(t, h)
	if err := Create(h, "prod", identity(t), Lock{}); !errors.Is(err, ErrExists) {
		t.Errorf("over one that exists: %v", err)
	}
	// One that appears while another is made is not written over, even empty.
	h.Effect = func(what string) error {
		if strings.HasPrefix(what, "rename") {
			return h.Root.Mkdir("late", 0o755)
		}
		return nil
	}
	if err := Create(h, "late", id, Lock{}); !errors.Is(err, ErrExists) {
		t.Errorf("over one that appeared: %v", err)
	}
	if err := h.Root.Remove("late"); err != nil { // it is still empty
		t.Error(err)
	}
	if d := cmp.Diff(before, contents(t, h)); d != "" {
		t.Error(d)
	}
}

// Two at once: one makes it, the other says so.
func TestCreateTwice(t *testing.T) {
	h, id := parent(t), identity(t)
	var other error
	h.Effect = func(what string) error {
		if strings.HasPrefix(what, "rename") {
			second := &host.Host{Root: h.Root, Log: h.Log}
			other = Create(second, "prod", id, Lock{})
		}
		return nil
	}
	if err := Create(h, "prod", id, Lock{}); err != nil {
		t.Fatal(err)
	}
	if other == nil || !strings.Contains(other.Error(), "another kbuild") {
		t.Errorf("the other: %v", other)
	}
}

// What is in nobody's interest to tell is not told.
func TestIdentityIsSilent(t *testing.T) {
	id := identity(t)
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "token", id.Token, "key", id.CertificateKey)
	if strings.Contains(b.String(), id.Token.Reveal()) || strings.Contains(b.String(), id.CertificateKey.Reveal()) {
		t.Error(b.String())
	}
}

// FuzzSpec: whatever a --config is, it is refused, or cluster.yaml is made of it
// that is read back as the same cluster.
func FuzzSpec(f *testing.F) {
	files, err := filepath.Glob("../../firstboot/config/testdata/kubeadm/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(quick().Config.Data)
	f.Add([]byte("apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nclusterName:\n"))
	f.Add([]byte("kind: &a ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta2\nclusterName: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Spec{Name: "prod", Endpoint: "k8s.example.com:6443", Config: config.Document{Source: "fuzz", Data: data}}
		text, n, err := s.resolve()
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		back, err := Load(config.Document{Source: configFile, Data: text})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if n.Cluster.ControlPlaneEndpoint != s.Endpoint || back.Cluster.ControlPlaneEndpoint != s.Endpoint || back.Cluster.ClusterName != n.Cluster.ClusterName {
			t.Errorf("%+v\n%+v", n.Cluster, back.Cluster)
		}
	})
}
