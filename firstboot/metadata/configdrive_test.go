package metadata

import (
	"bytes"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/filesystem"
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
	for name, image := range volumes(t, files) {
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
