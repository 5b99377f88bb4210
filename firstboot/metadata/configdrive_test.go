package metadata

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/kbuild/kbuild/firstboot/config"
)

func TestConfigDrive(t *testing.T) {
	user := document + strings.Repeat("# a long file, of several clusters\n", 500)
	files := map[string]string{
		driveUserData:                    user,
		driveMetaData:                    `{"uuid":"d8e02d56","hostname":"node-7.novalocal","name":"vm7","meta":{"dsmode":"local"},"random_seed":"AAAA"}`,
		"openstack/2012-08-10/user_data": "of old",
		"ec2/latest/user-data":           "of old",
		"user_data":                      "elsewhere",
	}
	all := volumes(t, files)
	// What go-diskfs writes as Joliet names below the top are none.
	delete(all, "ISO 9660, Joliet")
	// As nova writes it (nova/virt/configdrive.py), and by Joliet names alone.
	all["nova"] = genisoimage(t, files, "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", "config-2")
	all["Joliet"] = genisoimage(t, files, "-J", "-V", "config-2")
	for name, image := range all {
		f, err := readConfigDrive(bytes.NewReader([]byte(image)))
		if err != nil || string(f.UserData()) != user || f.InstanceID != "d8e02d56" || f.Hostname != "node-7.novalocal" {
			t.Errorf("%s: %v, %d bytes of user-data, want %d; %q %q", name, err, len(f.UserData()), len(user), f.InstanceID, f.Hostname)
		}
	}
}

func TestConfigDriveFind(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for _, c := range []struct {
		name, label string
		files       map[string]string
		source, err string
	}{
		{"whole", "config-2", map[string]string{driveUserData: document, driveMetaData: "{}"}, "config drive, file " + driveUserData, ""},
		{"in capitals", "CONFIG-2", map[string]string{driveUserData: document}, "config drive, file " + driveUserData, ""},
		{"no user-data", "config-2", map[string]string{driveMetaData: "{}"}, "", ""},
		{"bad meta-data", "config-2", map[string]string{driveUserData: document, driveMetaData: "uuid: x"}, "", "meta_data.json: no JSON object"},
		{"odd meta-data", "config-2", map[string]string{driveUserData: document, driveMetaData: `{"uuid":["x"]}`}, "", "uuid is neither"},
	} {
		f, err := find(t, map[string]string{"/dev/disk/by-label/" + c.label: fatImage(t, filesystem.TypeFat12, 2<<20, c.files)})
		if f.Source != c.source || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q %v", c.name, f.Source, err)
		}
	}
	if _, err := find(t, map[string]string{"/dev/disk/by-label/config-2": strings.Repeat("x", 1<<20)}); err == nil || !strings.Contains(err.Error(), "config-2: it is neither") {
		t.Errorf("no file system: %v", err)
	}
}

// As FuzzVolume, for volumes with directories, and for UDF.
func FuzzDirectories(f *testing.F) {
	files := map[string]string{driveUserData: "a: b\n" + strings.Repeat("#", 9000), driveMetaData: `{"uuid":"u"}`, ovfEnv: ovf(customData(document))}
	images := []string{udfDisc(f, files, true), iso(f, files, true), fatImage(f, filesystem.TypeFat12, 2<<20, files), fatImage(f, filesystem.TypeFat32, 34<<20, files)}
	for i := range images {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{8, 0, 20, 0xff})    // an UDF's anchor: where the descriptors are
		f.Add(uint8(i), []byte{8, 0x90, 56, 0xff}) // a size in one of its file entries
		f.Add(uint8(i), []byte{0, 2, 3, 2})        // a FAT's cluster that follows itself
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		r := patched{images[int(kind)%len(images)], data}
		for _, read := range []func(io.ReaderAt) (Found, error){readConfigDrive, readAzureDisc} {
			found, err := read(r)
			if err == nil && len(found.UserData()) > config.MaxSize {
				t.Errorf("%d bytes of user-data", len(found.UserData()))
			}
		}
	})
}

// What a service or a drive says in JSON is text, a number, nothing or an error.
func FuzzJSONMember(f *testing.F) {
	for _, s := range []string{`{"uuid":"u","hostname":"n"}`, `{"a":{"b":7}}`, `{"a":null}`, `{"a":[1]}`, `{"uuid":`, `[]`} {
		f.Add([]byte(s), "uuid")
		f.Add([]byte(s), "a.b")
	}
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		v, ok, err := jsonMember(b, path)
		if v != "" && (!ok || err != nil) {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
	})
}
