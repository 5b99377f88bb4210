package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Where the node looks: firstboot/metadata.
const (
	credential   = "kbuild.userdata"
	ignitionFile = "/etc/kbuild/user-data"
)

// CloudConfig wraps user-data for machines that also run cloud-init: a
// cloud-config whose key `kbuild` holds the documents as text. cloud-init
// ignores a key that it does not know.
func CloudConfig(docs []byte) []byte {
	var b bytes.Buffer
	b.WriteString("#cloud-config\nkbuild: |\n")
	for line := range strings.Lines(string(docs)) {
		b.WriteString("  " + line)
	}
	return b.Bytes()
}

// Ignition wraps user-data into an Ignition config that writes it to the file
// where a node on an Ignition-based OS looks for it. Its version is the lowest
// with that spec, so that every engine of spec 3 reads it. Other configs merge
// with it. (https://coreos.github.io/ignition/configuration-v3_0/)
func Ignition(docs []byte) ([]byte, error) {
	type contents struct {
		Source string `json:"source"`
	}
	type file struct {
		Path      string   `json:"path"`
		Overwrite bool     `json:"overwrite"`
		Contents  contents `json:"contents"`
		Mode      int      `json:"mode"`
	}
	var c struct {
		Ignition struct {
			Version string `json:"version"`
		} `json:"ignition"`
		Storage struct {
			Files []file `json:"files"`
		} `json:"storage"`
	}
	c.Ignition.Version = "3.0.0"
	c.Storage.Files = []file{{ignitionFile, true, contents{"data:;base64," + base64.StdEncoding.EncodeToString(docs)}, secretMode}}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("cannot write the Ignition config: %w", err)
	}
	return append(b, '\n'), nil
}

// SMBIOS wraps user-data into a systemd credential as an SMBIOS string of type
// 11 carries it: for QEMU `-smbios type=11,value=…`, and for other VMMs that
// set OEM strings. (systemd.system-credentials(7))
func SMBIOS(docs []byte) []byte {
	return []byte("io.systemd.credential.binary:" + credential + "=" + base64.StdEncoding.EncodeToString(docs) + "\n")
}

// MetaData is the file meta-data beside user-data on a NoCloud volume. The
// name may be empty.
func MetaData(cluster, role, name string) []byte {
	id := cluster + "-" + role
	if name == "" {
		return []byte("instance-id: " + id + "\n")
	}
	return []byte("instance-id: " + id + "-" + name + "\nlocal-hostname: " + name + "\n")
}
