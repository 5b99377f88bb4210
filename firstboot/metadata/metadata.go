// Package metadata knows where a node's user-data comes from.
//
// A source is a small value: a name and a function. The first source that has
// user-data wins; what the image itself has baked lies beneath it. Everything
// read here comes from outside and is taken with tongs: sizes are bounded, and
// whatever the bytes are, the outcome is user-data or an error.
package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Found is what was found.
type Found struct {
	// Documents are the baked configuration, if there is one, and then the
	// user-data, if there is some.
	Documents []config.Document
	// Source names where the user-data was found; empty if there is none.
	Source string
	// InstanceID is the platform's name of this machine, if it says one.
	InstanceID string
	// Hostname is the host name that the platform gives, if it does.
	Hostname string
}

// UserData is the user-data alone, nil if there is none.
func (f Found) UserData() []byte {
	for _, d := range f.Documents {
		if !d.Baked {
			return d.Data
		}
	}
	return nil
}

// source is one place to look. It returns errNone where it has nothing.
type source struct {
	name string
	find func(ctx context.Context, h *host.Host) (Found, error)
}

var errNone = errors.New("nothing there")

// sources are the places to look, in order.
func sources() []source {
	return []source{
		{"systemd credential", credential},
		{"NoCloud volume", noCloud},
	}
}

// Find looks for user-data. Finding none is no error: Source is empty then.
// Something that is there but cannot be read is an error; it names the source
// and what to do.
func Find(ctx context.Context, h *host.Host) (Found, error) {
	found := Found{}
	for _, s := range sources() {
		if err := ctx.Err(); err != nil {
			return Found{}, err
		}
		f, err := s.find(ctx, h)
		if errors.Is(err, errNone) {
			continue
		}
		if err != nil {
			return Found{}, fmt.Errorf("cannot read user-data from the %s: %w", s.name, err)
		}
		found = f
		break
	}
	baked, err := readFile(h, images.BakedConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Found{}, fmt.Errorf("cannot read the image's own configuration: %w", err)
	default:
		d := config.Document{Source: "image " + images.BakedConfig, Data: baked, Baked: true}
		found.Documents = append([]config.Document{d}, found.Documents...)
	}
	return found, nil
}

func open(h *host.Host, name string) (*os.File, error) {
	return h.Root.Open(strings.TrimPrefix(path.Clean(name), "/"))
}

// readFile reads a file of the machine that is not larger than user-data may
// be.
func readFile(h *host.Host, name string) ([]byte, error) {
	f, err := open(h, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > config.MaxSize {
		return nil, fmt.Errorf("%s is larger than %d bytes: make it smaller; manifests belong into the image", name, config.MaxSize)
	}
	return b, nil
}
