// Package metadata knows where a node's user-data comes from, and what it may
// be wrapped in.
//
// A source is a small value: a name and a function. The first source that has
// user-data wins; what the image itself has baked lies beneath it. A source
// that needs a service is asked only on a machine that says of itself (DMI)
// that it is of that platform, so that nobody waits for a service that is not
// there; where it is, and does not answer yet, it is waited for.
//
// Everything read here comes from outside and is taken with tongs: sizes are
// bounded, waits end, and whatever the bytes are, the outcome is user-data or
// an error.
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
	// Warnings tell, for the log, what of the user-data was not for us.
	Warnings []string
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

// source is one place to look.
type source struct {
	name  string
	give  string // how to give it user-data, in Markdown
	limit string // how much it can hold
	// find returns the user-data as it was given, or errNone.
	find func(ctx context.Context, h *host.Host) (Found, error)
}

var errNone = errors.New("nothing there")

// given is user-data as a source has it.
func given(name string, data []byte) Found {
	return Found{Source: name, Documents: []config.Document{{Source: name, Data: data}}}
}

// Find looks for user-data. Finding none is no error: Source is empty then.
// Something that is there but cannot be read is an error; it names the source
// and what to do, and is a Retry where waiting helps; its After is
// zero where the source does not say how long it wants to be left alone.
func Find(ctx context.Context, h *host.Host) (Found, error) {
	found := Found{}
	for _, s := range sources() {
		if err := ctx.Err(); err != nil {
			return Found{}, err
		}
		f, err := s.find(ctx, h)
		if err == nil {
			f, err = unwrapped(f)
		}
		if errors.Is(err, errNone) {
			continue
		}
		if err != nil {
			return Found{}, fmt.Errorf("cannot read user-data from the %s: %w", s.name, err)
		}
		found = f
		break
	}
	baked, err := Baked(h)
	if err != nil {
		return Found{}, err
	}
	if baked.Data != nil {
		found.Documents = append([]config.Document{baked}, found.Documents...)
	}
	return found, nil
}

// Baked reads the image's own configuration; Data is nil where it has none.
func Baked(h *host.Host) (config.Document, error) {
	d := config.Document{Source: config.BakedSource, Baked: true}
	b, err := readFile(h, images.BakedConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("cannot read the image's own configuration: %w", err)
	}
	d.Data = b
	return d, nil
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
	b, err := readAll(f)
	if errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("%s is %w", name, err)
	}
	return b, err
}

var errTooLarge = fmt.Errorf("larger than %d bytes: make it smaller; manifests belong into the image", config.MaxSize)

// readAll reads what is not larger than user-data may be.
func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, config.MaxSize+1))
	if err == nil && len(b) > config.MaxSize {
		err = errTooLarge
	}
	return b, err
}
