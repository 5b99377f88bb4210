package metadata

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/kbuild/kbuild/firstboot/config"
)

// The volumes of these tests are written by go-diskfs, not by us.

// iso is an ISO 9660 image with these files, with Rock Ridge names, or else
// with Joliet's.
func iso(t testing.TB, files map[string]string, rockRidge bool) string {
	t.Helper()
	return volume(t, 2<<20, diskfs.SectorSize(2048), disk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: "cidata"}, files,
		func(fs filesystem.FileSystem) error {
			return fs.(*iso9660.FileSystem).Finalize(iso9660.FinalizeOptions{RockRidge: rockRidge, Joliet: !rockRidge, VolumeIdentifier: "cidata"})
		})
}

// fatImage is a FAT image.
func fatImage(t testing.TB, typ filesystem.Type, size int64, files map[string]string) string {
	t.Helper()
	return volume(t, size, diskfs.SectorSize512, disk.FilesystemSpec{FSType: typ, VolumeLabel: "CIDATA"}, files, nil)
}

func volume(t testing.TB, size int64, sector diskfs.SectorSize, spec disk.FilesystemSpec, files map[string]string, finish func(filesystem.FileSystem) error) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "volume")
	d, err := diskfs.Create(name, size, sector)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := d.CreateFilesystem(spec)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		if dir := path.Dir(file); dir != "." {
			if err := fs.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
		}
		w, err := fs.OpenFile(file, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if finish != nil {
		if err := finish(fs); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// genisoimage is a disc of these files by the program of that name, which
// OpenStack runs too.
func genisoimage(t testing.TB, files map[string]string, flags ...string) string {
	t.Helper()
	bin, err := exec.LookPath("genisoimage")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "disc")
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, append(flags, "-quiet", "-o", out, dir)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8") // in which it reads names
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// volumes are one of each kind, with the same files.
func volumes(t testing.TB, files map[string]string) map[string]string {
	return map[string]string{
		"ISO 9660, Rock Ridge": iso(t, files, true),
		"ISO 9660, Joliet":     iso(t, files, false),
		"FAT12":                fatImage(t, filesystem.TypeFat12, 2<<20, files),
		"FAT16":                fatImage(t, filesystem.TypeFat16, 16<<20, files),
		"FAT32":                fatImage(t, filesystem.TypeFat32, 34<<20, files),
	}
}

func read(image string) (Found, error) { return readNoCloud(bytes.NewReader([]byte(image))) }

func TestNoCloud(t *testing.T) {
	user := "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n" + strings.Repeat("# a long file, of several clusters\n", 2000)
	for name, image := range volumes(t, map[string]string{
		"user-data":      user,
		"meta-data":      "instance-id: i-0123\nlocal-hostname: node-7\nother: [1]\n",
		"network-config": "version: 2\n",
	}) {
		f, err := read(image)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(f.UserData()) != user || f.InstanceID != "i-0123" || f.Hostname != "node-7" {
			t.Errorf("%s: %d bytes of user-data, want %d; %q %q", name, len(f.UserData()), len(user), f.InstanceID, f.Hostname)
		}
	}
}

func TestNoCloudLabels(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	image := fatImage(t, filesystem.TypeFat12, 2<<20, map[string]string{"user-data": "a: b\n", "meta-data": ""})
	for _, label := range []string{"cidata", "CIDATA"} {
		f, err := find(t, map[string]string{"/dev/disk/by-label/" + label: image})
		if err != nil || string(f.UserData()) != "a: b\n" || f.Source != "NoCloud volume, file user-data" {
			t.Errorf("%s: %+v %v", label, f, err)
		}
	}
}

// udev's links are relative.
func TestNoCloudLink(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	h := machine(t, map[string]string{"/dev/vdb": iso(t, map[string]string{"user-data": "a: b\n"}, true), "/dev/disk/by-label/x": ""})
	if err := os.Symlink("../../vdb", h.Path("/dev/disk/by-label/cidata")); err != nil {
		t.Fatal(err)
	}
	if f, err := Find(t.Context(), h); err != nil || string(f.UserData()) != "a: b\n" {
		t.Errorf("%+v %v", f, err)
	}
}

func TestNoCloudBad(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes many volumes")
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no user-data":  {map[string]string{"meta-data": "instance-id: a\n"}, "no file user-data"},
		"bad meta-data": {map[string]string{"user-data": "a: b\n", "meta-data": "- x\n: :\n"}, "meta-data"},
		"too large":     {map[string]string{"user-data": strings.Repeat("#", config.MaxSize+1)}, "larger than"},
	} {
		for kind, image := range volumes(t, c.files) {
			if _, err := read(image); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
	}
	for name, image := range map[string]string{"empty": "", "zeros": strings.Repeat("\x00", 1<<20), "text": strings.Repeat("hello\n", 10000)} {
		if _, err := read(image); err == nil {
			t.Errorf("%s: it is taken for a volume", name)
		}
	}
}

// A chain of clusters that runs in a circle ends, and is an error or short.
func TestFATCircle(t *testing.T) {
	image := []byte(fatImage(t, filesystem.TypeFat12, 2<<20, map[string]string{"user-data": strings.Repeat("x", 9000)}))
	for at := 512; at < 512+64; at++ {
		old := image[at]
		for _, b := range []byte{0, 2, 3, 0x20, 0x30, 0xff} {
			image[at] = b
			if f, err := readNoCloud(bytes.NewReader(image)); err == nil && len(f.UserData()) != 9000 {
				t.Errorf("byte %d = %d: %d bytes of user-data", at, b, len(f.UserData()))
			}
		}
		image[at] = old
	}
}

// Plain ISO 9660 names are capitals, "_" for "-" and a version.
func TestISOPlainNames(t *testing.T) {
	rec := make([]byte, 60)
	copy(rec[33:], "USER_DATA.;1")
	if got := isoName(rec[:46], len("USER_DATA.;1"), false); got != "USER_DATA" || !sameName(got, "user-data") {
		t.Errorf("%q", got)
	}
	joliet := []byte{0, 'u', 0, 's', 0, 'e', 0, 'r', 0, '-', 0, 'd', 0, 'a', 0, 't', 0, 'a', 0, ';', 0, '1'}
	rec = append(make([]byte, 33), joliet...)
	if got := isoName(rec, len(joliet), true); got != "user-data" {
		t.Errorf("%q", got)
	}
}

// patched is a volume with some of its bytes changed: data holds records of a
// three-byte offset and a byte.
type patched struct {
	base string
	data []byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := strings.NewReader(p.base).ReadAt(b, off)
	for d := p.data; len(d) >= 4; d = d[4:] {
		at := int64(d[0])<<16 | int64(d[1])<<8 | int64(d[2])
		if at >= off && at < off+int64(n) {
			b[at-off] = d[3]
		}
	}
	return n, err
}

// Whatever is on a volume, reading it ends, with the files or an error, and
// takes no more memory than the files may have.
func FuzzVolume(f *testing.F) {
	all := volumes(f, map[string]string{"user-data": "a: b\n" + strings.Repeat("#", 9000), "meta-data": "instance-id: i\n"})
	kinds := slices.Sorted(maps.Keys(all))
	for i := range kinds {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0, 0x80, 0, 2})       // type of an ISO's first descriptor
		f.Add(uint8(i), []byte{0, 0x80, 0xa6, 0xff}) // size of an ISO's top directory
		f.Add(uint8(i), []byte{0, 0, 13, 0x80})      // sectors in a FAT's cluster
		f.Add(uint8(i), []byte{0, 2, 3, 2})          // a FAT's cluster that follows itself
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		for _, r := range []io.ReaderAt{patched{all[kinds[int(kind)%len(kinds)]], data}, bytes.NewReader(data)} {
			found, err := readNoCloud(r)
			if err == nil && len(found.UserData()) > config.MaxSize {
				t.Errorf("%d bytes of user-data", len(found.UserData()))
			}
		}
	})
}
