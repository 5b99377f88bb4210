package metadata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func field(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/field", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Seed volumes without Joliet and Rock Ridge have names of 8.3 characters at
// level 1, and capitals at level 3.
func TestISOShortNames(t *testing.T) {
	user := field(t, "user-data-seed")
	files := map[string]string{"user-data": user, "meta-data": field(t, "meta-data-seed")}
	for _, level := range []string{"1", "3"} {
		f, err := read(genisoimage(t, files, "-iso-level", level, "-V", "CIDATA"))
		if err != nil || string(f.UserData()) != user || f.InstanceID != "i-10" || f.Hostname != "cp1" {
			t.Errorf("level %s: %+v %v", level, f, err)
		}
	}
	drive := map[string]string{driveUserData: user, driveMetaData: `{"uuid": "i-11"}`}
	f, err := readConfigDrive(strings.NewReader(genisoimage(t, drive, "-iso-level", "1", "-V", "CONFIG-2")))
	if err != nil || string(f.UserData()) != user || f.InstanceID != "i-11" {
		t.Errorf("config drive: %+v %v", f, err)
	}
	// The whole name goes before the short one.
	f, err = read(genisoimage(t, map[string]string{"user-data": user, "user_dat": "no: no\n"}, "-iso-level", "3", "-V", "CIDATA"))
	if err != nil || string(f.UserData()) != user {
		t.Errorf("two names: %+v %v", f, err)
	}
}

// Boundary lines without their dashes are named as that.
func TestMultipartWithoutDashes(t *testing.T) {
	_, _, err := wrapped(field(t, "multipart-no-dashes"))
	if err == nil || !strings.Contains(err.Error(), "line 4 is the boundary without the two dashes") {
		t.Error(err)
	}
	_, _, err = wrapped("Content-Type: multipart/mixed; boundary=\"A\"\nMIME-Version: 1.0\n\n--B\nContent-Type: text/x-kbuild\n\na: b\n--B--\n")
	if err == nil || !strings.Contains(err.Error(), "none of its lines is --A") {
		t.Error(err)
	}
	d, _, err := wrapped(field(t, "multipart-terraform"))
	if err != nil || !strings.Contains(string(d.Data), "role: worker") {
		t.Errorf("%s %v", d.Data, err)
	}
}

// Windows' forms of a file are read.
func TestWindowsFiles(t *testing.T) {
	for _, name := range []string{"windows-utf8", "windows-utf16"} {
		d, _, err := wrapped(field(t, name))
		if err != nil || !strings.Contains(string(d.Data), "name: cp1") {
			t.Errorf("%s: %q %v", name, d.Data, err)
		}
	}
}
