package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kbuild/kbuild/firstboot/host"
)

// noCloud reads the NoCloud volume (cloud-init, "NoCloud"), an ISO 9660 or FAT
// file system that holds user-data and meta-data.
func noCloud(_ context.Context, h *host.Host) (Found, error) {
	return onVolume(h, []string{"cidata", "CIDATA"}, readNoCloud)
}

// onVolume reads the volume that has one of the labels, as udev links them. It
// is read from the block device itself, so that nothing need be mounted and the
// kernel need not know the file system.
func onVolume(h *host.Host, labels []string, read func(io.ReaderAt) (Found, error)) (Found, error) {
	for _, label := range labels {
		dev := "/dev/disk/by-label/" + label
		f, err := open(h, dev)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		defer f.Close()
		found, err := read(f)
		if err != nil && !errors.Is(err, errNone) {
			err = fmt.Errorf("%s: %w", dev, err)
		}
		return found, err
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
	found := given("NoCloud volume, file user-data", user)
	if err := found.instance(files["meta-data"]); err != nil {
		return Found{}, fmt.Errorf("file meta-data: %w", err)
	}
	return found, nil
}

// instance takes what meta-data, YAML in cloud-init's words, says of the
// machine.
func (f *Found) instance(data []byte) error {
	var meta struct {
		InstanceID string `yaml:"instance-id"`
		LocalHost  string `yaml:"local-hostname"`
		Host       string `yaml:"hostname"`
	}
	if err := decodeYAML(data, &meta); err != nil {
		return fmt.Errorf("%w: write `instance-id: NAME` and `local-hostname: NAME` lines, or leave it empty", err)
	}
	f.InstanceID, f.Hostname = meta.InstanceID, meta.LocalHost
	if f.Hostname == "" {
		f.Hostname = meta.Host
	}
	return nil
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
