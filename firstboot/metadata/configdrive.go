package metadata

import (
	"context"
	"fmt"
	"io"

	"github.com/kbuild/kbuild/firstboot/host"
)

// Files of a config drive (nova, "Config drives").
const (
	driveUserData = "openstack/latest/user_data"
	driveMetaData = "openstack/latest/meta_data.json"
)

// configDrive reads OpenStack's config drive, an ISO 9660 or FAT volume. Other
// platforms have the same.
func configDrive(_ context.Context, h *host.Host) (Found, error) {
	return onVolume(h, []string{"config-2", "CONFIG-2"}, readConfigDrive)
}

func readConfigDrive(r io.ReaderAt) (Found, error) {
	files, err := readVolume(r, driveUserData, driveMetaData)
	if err != nil {
		return Found{}, err
	}
	user, ok := files[driveUserData]
	if !ok {
		return Found{}, errNone // the drive is made for every machine, user-data or not
	}
	f := given("config drive, file "+driveUserData, user)
	meta, ok := files[driveMetaData]
	if !ok {
		return f, nil
	}
	for member, to := range map[string]*string{"uuid": &f.InstanceID, "hostname": &f.Hostname} {
		v, _, err := jsonMember(meta, member)
		if err != nil {
			return Found{}, fmt.Errorf("file %s: %w", driveMetaData, err)
		}
		*to = v
	}
	f.Hostname = hostname(f.Hostname)
	return f, nil
}
