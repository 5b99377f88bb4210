package disk_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/disk"
	"github.com/kbuild/kbuild/templates"
)

// trees returns the operating system and the tools from the user's cache,
// which makes them if they are not there.
func trees(t *testing.T) (osTree, tools base.Tree) {
	t.Helper()
	if os.Getenv("KBUILD_INTEGRATION") != "1" {
		t.Skip("set KBUILD_INTEGRATION=1 to make real disks")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := os.Getenv("KBUILD_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "kbuild")
	}
	c := base.Config{Cache: dir, Log: t.Logf}
	osTree, err := base.OS(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if tools, err = base.Tools(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return osTree, tools
}

// nodeRoot copies the base OS and lays our files over it. With backwards,
// directories list their entries in another order, as on another machine.
func nodeRoot(t *testing.T, from base.Tree, to string, backwards bool) {
	t.Helper()
	order := "sort"
	if backwards {
		order = "sort -r"
	}
	copy := exec.Command("sh", "-c", `mkdir "$2" && cd "$1" && find . | LC_ALL=C `+order+` | tar -c --no-recursion -T - | tar -xp -C "$2"`, "sh", from.Dir, to)
	if out, err := copy.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files := templates.Root()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if d.IsDir() {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			return os.Chmod(path, 0o755)
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func input(root, out string, tools base.Tree, t *testing.T) disk.Input {
	return disk.Input{
		Layout: disk.Layout{Seed: "test", Version: "v1.19.12-test"}, Root: root, Tools: tools,
		Epoch: time.Unix(1735689600, 0), Formats: []string{"raw", "qcow2"}, Out: out, Name: "disk", Log: t.Logf,
	}
}

func TestDisk(t *testing.T) {
	osTree, tools := trees(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "other", "second one")
	for _, d := range []string{first, second} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nodeRoot(t, osTree, filepath.Join(first, "root"), false)
	in := input(filepath.Join(first, "root"), first, tools, t)
	out, err := disk.Build(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("judges", func(t *testing.T) { judge(t, tools, first, out) })

	t.Run("units", func(t *testing.T) {
		cmd := base.Tree{Dir: in.Root}.Command(t.Context(), nil, nil, "systemd-analyze", "verify", "--man=no",
			"var.mount", "efi.mount", "local-fs.target", "emergency.service", "systemd-networkd-wait-online.service", "multi-user.target")
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	})

	t.Run("identical", func(t *testing.T) {
		defer syscall.Umask(syscall.Umask(0o077))
		t.Setenv("TZ", "Asia/Tokyo")
		t.Setenv("LC_ALL", "tr_TR.UTF-8")
		nodeRoot(t, osTree, filepath.Join(second, "root"), true)
		again, err := disk.Build(t.Context(), input(filepath.Join(second, "root"), second, tools, t))
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]string{{out.Root, again.Root}, {out.Verity, again.Verity}, {out.UKI, again.UKI}, {out.Raw, again.Raw}, {out.QCOW2, again.QCOW2}} {
			if a, b := sum(t, pair[0]), sum(t, pair[1]); a != b {
				t.Errorf("%s and %s differ", pair[0], pair[1])
			}
		}
	})

	t.Run("secure boot", func(t *testing.T) {
		signed := filepath.Join(dir, "signed")
		if err := os.Mkdir(signed, 0o755); err != nil {
			t.Fatal(err)
		}
		in := input(filepath.Join(first, "root"), signed, tools, t)
		in.Formats = []string{"raw"}
		in.SecureBoot = &disk.SecureBoot{Key: filepath.Join(dir, "db.key"), Cert: filepath.Join(dir, "db.crt")}
		identity(t, in.SecureBoot)
		if _, err := disk.Build(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		script := `set -e; mcopy -i /tmp/o/disk.raw@@1M ::/EFI/BOOT/BOOTX64.EFI /tmp/boot.efi
			for f in /tmp/boot.efi /tmp/o/disk.efi; do sbverify --cert /tmp/keys/db.crt $f; done`
		cmd := tools.Command(t.Context(), []base.Bind{{Name: "o", Dir: signed}, {Name: "keys", Dir: dir}}, nil, "sh", "-c", script)
		if b, err := cmd.CombinedOutput(); err != nil || strings.Count(string(b), "Signature verification OK") != 2 {
			t.Errorf("sbverify: %v: %s", err, b)
		}
	})

	t.Run("existing output", func(t *testing.T) {
		if _, err := disk.Build(t.Context(), in); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("want an error about the existing output, got %v", err)
		}
	})
}

// identity makes a key and a certificate of its own.
func identity(t *testing.T, s *disk.SecureBoot) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kbuild test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{s.Key: {Type: "PRIVATE KEY", Bytes: pkcs8}, s.Cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// judge lets programs that we did not write look at the outputs.
func judge(t *testing.T, tools base.Tree, dir string, out disk.Output) {
	run := func(name string, args ...string) (string, error) {
		cmd := tools.Command(t.Context(), []base.Bind{{Name: "o", Dir: dir, Writable: true}}, nil, name, args...)
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	must := func(name string, args ...string) string {
		t.Helper()
		o, err := run(name, args...)
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, o)
		}
		return o
	}
	must("fsck.erofs", "/tmp/o/disk.root.erofs")
	must("veritysetup", "verify", "/tmp/o/disk.root.erofs", "/tmp/o/disk.root.verity", out.RootHash)
	must("sfdisk", "--verify", "/tmp/o/disk.raw")
	must("qemu-img", "compare", "/tmp/o/disk.raw", "/tmp/o/disk.qcow2")
	must("objdump", "-h", "/tmp/o/disk.efi")

	var table struct {
		PartitionTable struct {
			ID         string
			Partitions []struct {
				Start, Size      uint64
				Type, UUID, Name string
			}
		}
	}
	if err := json.Unmarshal([]byte(must("sfdisk", "--json", "/tmp/o/disk.raw")), &table); err != nil {
		t.Fatal(err)
	}
	pt := table.PartitionTable
	if !strings.EqualFold(pt.ID, out.DiskGUID) {
		t.Errorf("the disk's GUID is %s, planned %s", pt.ID, out.DiskGUID)
	}
	if len(pt.Partitions) != 3 {
		t.Fatalf("%d partitions", len(pt.Partitions))
	}
	for i, p := range pt.Partitions {
		want := out.Partitions[i]
		if !strings.EqualFold(p.Type, want.Type) || !strings.EqualFold(p.UUID, want.UUID) || p.Name != want.Label || p.Size*512 != want.Size {
			t.Errorf("partition %d is %+v, planned %+v", i+1, p, want)
		}
	}
	// The partitions hold what the update files hold.
	raw, err := os.Open(out.Raw)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for i, file := range map[int]string{1: out.Root, 2: out.Verity} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(raw, int64(pt.Partitions[i].Start)*512, int64(len(b))))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("partition %d does not hold %s: %v", i+1, file, err)
		}
	}
	esp, err := os.Create(filepath.Join(dir, "esp"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(esp, io.NewSectionReader(raw, int64(pt.Partitions[0].Start)*512, int64(pt.Partitions[0].Size)*512)); err != nil {
		t.Fatal(err)
	}
	if err := esp.Close(); err != nil {
		t.Fatal(err)
	}
	must("fsck.fat", "-n", "/tmp/o/esp")
	list := must("mdir", "-/", "-b", "-i", "/tmp/o/esp", "::/")
	for _, want := range []string{"::/EFI/BOOT/BOOTX64.EFI", "::/EFI/Linux/kbuild_v1.19.12-test_0_" + out.RootHash[:16] + ".efi", "::/loader/loader.conf"} {
		if !strings.Contains(list, want+"\n") {
			t.Errorf("the ESP lacks %s: %s", want, list)
		}
	}

	// The judges must be able to say no.
	bad, err := os.ReadFile(out.Root)
	if err != nil {
		t.Fatal(err)
	}
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "bad"), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if o, err := run("veritysetup", "verify", "/tmp/o/bad", "/tmp/o/disk.root.verity", out.RootHash); err == nil {
		t.Errorf("a flipped bit passes: %s", o)
	}
}

// However a build is stopped, nothing is left in the output directory and
// nothing stays mounted.
func TestStopped(t *testing.T) {
	osTree, tools := trees(t)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 2 * time.Second} {
		out := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := disk.Build(ctx, input(osTree.Dir, out, tools, t))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %s: want the context's error, got %v", after, err)
		}
		left, err := os.ReadDir(out)
		if err != nil || len(left) != 0 {
			t.Errorf("after %s: left %v: %v", after, left, err)
		}
	}
	now, err := os.ReadFile("/proc/self/mounts")
	if err != nil || string(now) != string(mounts) {
		t.Errorf("mounts changed: %v\nbefore:\n%s\nnow:\n%s", err, mounts, now)
	}
}

func TestBadInput(t *testing.T) {
	root, out := t.TempDir(), t.TempDir()
	good := disk.Input{Layout: disk.Layout{Version: "v1"}, Root: root, Out: out, Name: "disk", Epoch: time.Unix(1735689600, 0), Formats: []string{"raw"}}
	for name, c := range map[string]struct {
		change func(*disk.Input)
		want   string
	}{
		"version":      {func(in *disk.Input) { in.Version = "a b" }, "image version"},
		"name":         {func(in *disk.Input) { in.Name = "a/b" }, "output name"},
		"epoch":        {func(in *disk.Input) { in.Epoch = time.Unix(0, 0) }, "1980"},
		"format":       {func(in *disk.Input) { in.Formats = []string{"vmdk"} }, "use raw or qcow2"},
		"root hash":    {func(in *disk.Input) { in.Cmdline = []string{"roothash=1"} }, "kernel parameter"},
		"no kernel":    {func(*disk.Input) {}, "must hold one usr/lib/modules/VERSION/vmlinuz"},
		"no directory": {func(in *disk.Input) { in.Out = filepath.Join(out, "missing"); kernel(t, root) }, "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			in := good
			in.Root = t.TempDir()
			root = in.Root
			c.change(&in)
			_, err := disk.Build(t.Context(), in)
			if err == nil || !strings.HasPrefix(err.Error(), "cannot make the disk: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
}

// kernel makes root look as if it held one.
func kernel(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "usr/lib/modules/6.0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func sum(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
