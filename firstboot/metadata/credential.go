package metadata

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"

	"github.com/kbuild/kbuild/firstboot/host"
)

// Credential is the name of the systemd credential that carries user-data.
const Credential = "kbuild.userdata"

// credential reads the systemd credential. systemd gives it to the service in
// $CREDENTIALS_DIRECTORY; a person who runs kbuild-firstboot by hand finds it
// where systemd keeps the service's and the system's own.
func credential(_ context.Context, h *host.Host) (Found, error) {
	dirs := []string{"/run/credentials/kbuild-firstboot.service", "/run/credentials/@system"}
	if d := os.Getenv("CREDENTIALS_DIRECTORY"); d != "" {
		dirs = append([]string{d}, dirs...)
	}
	for _, d := range dirs {
		b, err := readFile(h, path.Join(d, Credential))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return Found{}, err
		}
		return given("credential "+Credential, b), nil
	}
	return Found{}, errNone
}

// userDataFile is user-data in the image itself, or on an Ignition-based OS
// what the user's Ignition config wrote. It goes before the platform, whose
// user-data there is that Ignition config.
const userDataFile = "/etc/kbuild/user-data"

func fromFile(_ context.Context, h *host.Host) (Found, error) {
	b, err := readFile(h, userDataFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Found{}, errNone
	}
	if err != nil {
		return Found{}, err
	}
	return given("file "+userDataFile, b), nil
}
