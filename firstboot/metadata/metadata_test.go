package metadata

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// machine is a host with these files.
func machine(t testing.TB, files map[string]string) *host.Host {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &host.Host{Root: root}
}

func find(t testing.TB, files map[string]string) (Found, error) {
	t.Helper()
	return Find(context.Background(), machine(t, files))
}

func TestNothing(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	f, err := find(t, nil)
	if err != nil || f.Source != "" || len(f.Documents) != 0 || f.UserData() != nil {
		t.Errorf("%+v %v", f, err)
	}
}

func TestCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/mine.service")
	for _, file := range []string{"/run/credentials/mine.service/kbuild.userdata", "/run/credentials/kbuild-firstboot.service/kbuild.userdata", "/run/credentials/@system/kbuild.userdata"} {
		f, err := find(t, map[string]string{file: "a: b", images.BakedConfig: "c: d"})
		if err != nil || f.Source != "credential kbuild.userdata" || string(f.UserData()) != "a: b" {
			t.Errorf("%s: %+v %v", file, f, err)
		}
		if len(f.Documents) != 2 || !f.Documents[0].Baked || string(f.Documents[0].Data) != "c: d" || f.Documents[1].Baked {
			t.Errorf("%s: the baked configuration does not lie beneath: %+v", file, f.Documents)
		}
	}
}

func TestBakedAlone(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	f, err := find(t, map[string]string{images.BakedConfig: "c: d"})
	if err != nil || f.Source != "" || len(f.Documents) != 1 || f.UserData() != nil {
		t.Errorf("%+v %v", f, err)
	}
}

func TestTooLarge(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/c")
	if _, err := find(t, map[string]string{"/c/kbuild.userdata": strings.Repeat("#", config.MaxSize+1)}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("credential: %v", err)
	}
	if _, err := find(t, map[string]string{"/c/kbuild.userdata": strings.Repeat("#", config.MaxSize)}); err != nil {
		t.Errorf("just not too large: %v", err)
	}
}

// A credential goes before a volume.
func TestOrder(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/c")
	files := map[string]string{"/dev/disk/by-label/cidata": iso(t, map[string]string{"user-data": "from: volume\n"}, true)}
	f, err := find(t, files)
	if err != nil || string(f.UserData()) != "from: volume\n" {
		t.Errorf("%+v %v", f, err)
	}
	files["/c/kbuild.userdata"] = "from: credential\n"
	f, err = find(t, files)
	if err != nil || string(f.UserData()) != "from: credential\n" {
		t.Errorf("%+v %v", f, err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Find(ctx, machine(t, nil)); err == nil {
		t.Error("a cancelled search goes on")
	}
}
