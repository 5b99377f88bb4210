package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// labels are the volume labels of a NoCloud volume (cloud-init, "NoCloud":
// "cidata", matched without regard to case), as udev links them.
func labels() []string { return []string{"cidata", "CIDATA"} }

// noCloud reads the NoCloud volume, an ISO 9660 or FAT file system that holds
// user-data and meta-data. It is read from the block device itself, so that
// nothing need be mounted and the kernel need not know the file system.
func noCloud(_ context.Context, h *host.Host) (Found, error) {
	for _, label := range labels() {
		dev := "/dev/disk/by-label/" + label
		f, err := open(h, dev)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		defer f.Close()
		found, err := readNoCloud(f)
		if err != nil {
			return Found{}, fmt.Errorf("%s: %w", dev, err)
		}
		return found, nil
	}
	return Found{}, errNone
}

// readNoCloud reads a volume.
func readNoCloud(r io.ReaderAt) (Found, error) {
	files, err := readVolume(r, "user-data", "meta-data")
	if err != nil {
		return Found{}, err
	}
	user, ok := files["user-data"]
	if !ok {
		return Found{}, fmt.Errorf("the volume holds no file user-data: put one at its top")
	}
	const name = "NoCloud volume, file user-data"
	found := Found{Source: name, Documents: []config.Document{{Source: name, Data: user}}}
	var meta struct {
		InstanceID string `yaml:"instance-id"`
		LocalHost  string `yaml:"local-hostname"`
		Host       string `yaml:"hostname"`
	}
	if err := decodeYAML(files["meta-data"], &meta); err != nil {
		return Found{}, fmt.Errorf("file meta-data: %w: write `instance-id: NAME` and `local-hostname: NAME` lines, or leave it empty", err)
	}
	found.InstanceID, found.Hostname = meta.InstanceID, meta.LocalHost
	if found.Hostname == "" {
		found.Hostname = meta.Host
	}
	return found, nil
}

// decodeYAML is yaml.Unmarshal, which has panicked on garbage before.
func decodeYAML(b []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is not YAML: %v", r)
		}
	}()
	return yaml.Unmarshal(b, v)
}
